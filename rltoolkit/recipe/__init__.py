"""Recipes: YAML to checked objects. Imports no torch."""

from rltoolkit.recipe.load import LoadedRecipe, load_recipe
from rltoolkit.recipe.paths import resolve_data_path
from rltoolkit.recipe.problems import RecipeError, RecipeProblem
from rltoolkit.recipe.resolve import output_dir_of, recipe_hash, resolved_dict
from rltoolkit.recipe.schema import METHODS, Recipe

__all__ = [
    "METHODS",
    "LoadedRecipe",
    "Recipe",
    "RecipeError",
    "RecipeProblem",
    "load_recipe",
    "output_dir_of",
    "recipe_hash",
    "resolve_data_path",
    "resolved_dict",
]
