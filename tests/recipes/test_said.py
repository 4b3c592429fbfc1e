"""What doc strings say of settings."""

from __future__ import annotations

from typing import NotRequired, TypedDict, Unpack

from segda.methods.daformer import DAFormer
from segda.recipes.build import parameters_of
from segda.recipes.said import about, said
from segda.recipes.schema import recipe_schema


class Settings(TypedDict):
    floor: float
    """Of what
    is kept."""
    cap: NotRequired[float]


class Mine:
    """first, second: both of them; None is neither. third: the third.

    fourth: of a paragraph,
    which goes on: here.
    Not: a key.
    """

    third: int
    """The line below goes before."""

    def __init__(self, first: int, second: int, third: int, fourth: int, **settings: Unpack[Settings]): ...


def test_words_are_those_of_the_class_or_of_the_line():
    assert said(Mine, parameters_of(Mine)) == {
        "first": "both of them; null is neither.",
        "second": "both of them; null is neither.",
        "third": "The line below goes before.",
        "fourth": "of a paragraph, which goes on: here. Not: a key.",
        "floor": "Of what is kept.",
    }


def test_words_of_a_class_that_this_one_derives_from_are_its_own():
    assert said(DAFormer, ["decay"]) == {"decay": "Of the teacher, see its `follow`."}


def test_what_a_class_is_stands_at_the_head_of_its_module():
    assert about(Mine) == "What doc strings say of settings."


def test_the_schema_says_of_every_key_what_it_is_or_of_what_block():
    schema = recipe_schema()
    blocks = [schema, *schema["$defs"].values(), *schema["properties"]["method"]["anyOf"][:-1]]
    blocks += schema["$defs"]["network"]["anyOf"][:-1]
    silent = [
        key
        for block in blocks
        for key, one in block.get("properties", {}).items()
        if "const" not in one and "description" not in one and "$ref" not in str(one)
    ]
    assert silent == []
