"""Sentences that state one number, and those that leave doubt about it."""

import pytest

from reward_models.answers.compare import same_answer
from reward_models.answers.sentences import stated_number

STATED = [
    ("The farmer has 27 sheep.", "27"),
    ("They can save $28 if they take the bus 5 times.", "$28"),
    ("It will take 7 more days to read all 300 pages.", "7"),
    ("It will take Ann 7 more days.", "7"),
    ("The tower is 1,250.5 feet high.", "1,250.5"),
    ("The air is -5 outside.", "-5"),
    ("There are 12 apples.", "12"),
    ("Ann has a total of 12 apples", "12"),
    ("Jordan reads 5 books per week.", "5"),
    ("Tom will pay $12.00 for 5 apples and 5 oranges.", "$12.00"),
    ("A makes $3 more for 1/2 pound of nuts and 1/3 pound of tea", "$3"),
    ("200 tiles times 12 dollars per tile = 2400", "2400"),
    ("20 tiles x $12 per tile = $240", "$240"),
    ("Total cost: 50", "50"),
    ("The least number of trips in 8 hours is 12 trips.", "12"),
    ("First, take 20 from both sides: x = 120 - 20. So it was 80 cm.", "80"),
]
NOT_STATED = """
If x is 3, then the answer is 5.
There are more than 5 cats
It takes at least 5 days
It takes 5 days at least
The result is 5 times 3
For 5 apples he pays a lot
I guess 5
The answer is not 5
It is 5 or 6
It is about 5 miles
After selling 5 he has 3 left
He bought 5 apples and 3 pears
The area is 5x
The area is 5 * 3
The area is 5 squared
The root is 2 sqrt(3)
so the line is y = 2x + 5 = 5
the answer is C
5
cm 5
A fraction where both the numerator and denominator are multiples of 5
The result is minus 5
The result is negative 5
She has twice 5 apples.
The answer is the square root of 5
It is half of 5
the cube of 5
The value is 5 factorial
two times 5
ten plus 5
five percent of 5
5 choose two
It takes 5 hours and thirty minutes.
It takes 5 hours to bake and thirty minutes to cool.
He ran 5 and a half miles.
He has 5 and a half miles left.
Tom has 5 and Jerry has thirteen
Tom has 5 apples because Jerry has thirteen
Five of the 5 apples
Three apples go to each of 5 kids
Ann has three apples and Bob has 5
Ann ate three apples and there are 5 apples
Each of the 5 friends gets three slices
The values are 5 and its negative
The odds are 5 to one
The probability is 5 in 100
The probability is 5 out of twelve
The ratio is 5 to five.
Every integer n except 5
All integers but 5
It might be 5 apples
anywhere from 5 apples upwards
There were errors in the text; if we assume 5 is right, fine
If we assume it is 5 then fine
He has zero apples instead of 5
One apple out of 5
Error: division by 5
The 5th option is the best.
John is 5th in line.
Line 5 of the table
Room 5 is empty
The value is 5 ab
The value is 5ab
The value is 5 i
It costs 5 thousands dollars.
He has 5 dozen eggs.
It is 5 less than 20
He will divide 5 apples
"""


@pytest.mark.parametrize(("sentence", "number"), STATED)
def test_a_statement_has_one_number(sentence: str, number: str) -> None:
    assert stated_number(sentence) == number


@pytest.mark.parametrize("sentence", NOT_STATED.strip().splitlines())
def test_nothing_is_stated(sentence: str) -> None:
    assert stated_number(sentence) is None
    assert sentence == "5" or not same_answer("5", sentence).equal
