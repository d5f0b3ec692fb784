"""What a file of JSON must hold: for files that somebody may have damaged, or made to do damage.

A shape is {name: predicate}. A dot in a name leads into a dictionary; where that is null or missing, it lacks nothing. A name
that ends in a question mark may be missing.
"""

import json
import math

MOST = 1 << 48  # of anything that is counted: sums of such numbers overflow nowhere


def is_there(value):
    """Whatever it is."""
    return True


def is_yes_or_no(value):
    return type(value) is bool


def is_text(value):
    return isinstance(value, str)


def is_tree(value):
    return isinstance(value, dict)


def is_count(value):
    return type(value) is int and 0 <= value < MOST


def is_size(value):
    return is_count(value) and value > 0


def is_number(value):
    """One that can be averaged and printed; a measurement may be infinite, as a perplexity is that nobody can hold."""
    return type(value) in (int, float) and (abs(value) < 1e300 or value in (math.inf, -math.inf))


def is_above_zero(value):
    return is_number(value) and value > 0


def is_one_of(*values):
    return lambda value: is_text(value) and value in values


def or_none(looks_right):
    return lambda value: value is None or looks_right(value)


def tree_of(looks_right):
    return lambda value: is_tree(value) and all(map(looks_right, value.values()))


def list_of(looks_right, length=None):
    return lambda value: (
        isinstance(value, list) and length in (None, len(value)) and all(map(looks_right, value))
    )


def first_fault(tree, shape):
    """What is wrong with a dictionary, in words, or None: "it has no settings.plan", "sentences is -1"."""
    for name, looks_right in shape.items():
        place, keys = tree, name.rstrip("?").split(".")
        for key in keys[:-1]:
            place = place.get(key) if isinstance(place, dict) else None
        if place is None or (name.endswith("?") and keys[-1] not in place):
            continue
        if keys[-1] not in place:
            return f"it has no {name}"
        if not looks_right(place[keys[-1]]):
            return f"{'.'.join(keys)} is {shorten(place[keys[-1]])}"
    return None


def shorten(value):
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
