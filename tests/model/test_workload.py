"""Does a revision keep its id, whatever fields are added to what it is made of?"""

from __future__ import annotations

import msgspec

from swell.model.environment import Environment
from swell.model.tensors import Tensor, Tensors
from swell.model.workload import Entry, Method, Revision, Web

FIRST = Revision(
    Environment("/usr/bin/python3", "3.11", packages=("numpy",), variables=(("A", "b"),)),
    "b" * 64,
    Entry(
        "shop",
        "Cart",
        "cls",
        (Method("add", generator=True), Method("see", web=Web("endpoint", "shop--cart-see"))),
    ),
    max_inputs=4,
)


def test_a_revision_of_the_first_release_has_the_id_it_had() -> None:
    """State directories hold apps whose workloads name their revisions by id: another one would not be found."""
    assert FIRST.id == "rv-453f06714c14", "a field was added: name it in LATER"


def test_tensors_are_part_of_the_content_where_there_are_any() -> None:
    (add, see) = FIRST.entry.methods
    model = msgspec.structs.replace(add, tensors=Tensors((Tensor("x"),)))
    entry = msgspec.structs.replace(FIRST.entry, methods=(model, see))
    assert msgspec.structs.replace(FIRST, entry=entry).id != FIRST.id
