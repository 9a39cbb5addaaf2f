"""Skills that are brought come first, and a creator's memory is never lost."""

import dataclasses
import json

import pytest

from reskill_jax.creators.candidates import ForeignMemoryError, WithCandidates, cannot_be_tried
from reskill_jax.creators.creator import Library, Proposal, Refusal
from reskill_jax.creators.episode import Episode
from reskill_jax.skills.skill import Bundle, Operation, Skill, Trigger


def skill(name, action="look."):
    return Skill(name, "When.", action, Trigger("general"))


@dataclasses.dataclass(frozen=True)
class Counting:
    """Proposes skill after skill; remembers how many, and what became of them."""

    def init(self, seed):
        return {"next": 0, "seen": 0, "decided": []}

    def observe(self, memory, episodes):
        return memory | {"seen": memory["seen"] + len(episodes)}

    def propose(self, memory, library, *, step):
        number = memory["next"]
        new = skill(f"made-{number}")
        bundle = Bundle((Operation("ADD", new.name, new),))
        proposal = Proposal(number, "bundle", bundle, (*library.skills, new), "made", 1.0)
        return memory | {"next": number + 1}, proposal

    def conclude(self, memory, trial, accepted, *, step, reason):
        return memory | {"decided": [*memory["decided"], [trial, accepted]]}

    def notes(self, memory):
        return {"traits": [memory["next"]]}

    def tell(self, memory):
        return memory, [{"did": "count"}]

    def figures(self, memory):
        return {"cost": 1.0}

    def dump(self, memory):
        return memory

    def load(self, data):
        return {"next": data["next"], "seen": data["seen"], "decided": data["decided"]}


LIBRARY = Library((skill("used"),), {"tested": skill("tested", "wait.")}, {}, 4)
EPISODE = Episode("t", "g", "", 0, True, 1, ("a",), ("o", "p"))


def test_what_is_brought_comes_first_and_numbers_do_not_collide():
    creator = WithCandidates(Counting())
    memory = creator.observe(creator.init(0), [EPISODE])
    memory = creator.add(memory, [skill("brought")], "a friend")
    memory, first = creator.propose(memory, LIBRARY, step=1)
    assert creator.notes(memory) == {} and first.reason == "brought: a friend"
    memory, second = creator.propose(memory, LIBRARY, step=1)
    assert creator.notes(memory) == {"traits": [1]}
    assert (first.id, second.id) == (0, 1)
    assert [p.bundle.operations[0].name for p in (first, second)] == ["brought", "made-0"]
    memory = creator.load(json.loads(json.dumps(creator.dump(memory))))
    memory = creator.conclude(memory, 1, True, step=2, reason="")
    memory = creator.conclude(memory, 0, False, step=2, reason="")
    assert memory.inner == {"next": 1, "seen": 1, "decided": [[0, True]]} and not memory.pending
    with pytest.raises(ValueError, match="no pending proposal 0"):
        creator.conclude(memory, 0, False, step=2, reason="")
    assert creator.tell(memory)[1] == [{"did": "count"}] and creator.figures(memory) == {"cost": 1}


@pytest.mark.parametrize(
    "new, library, reason",
    [
        (skill("new"), LIBRARY, None),
        (skill("used", "run."), LIBRARY, None),
        (skill("used"), LIBRARY, "it is in use already"),
        (skill("tested", "wait."), LIBRARY, "it is under test already"),
        (skill("tested"), LIBRARY, "another proposal about a skill of this name is under test"),
        (skill("new"), LIBRARY._replace(slots=2), "would hold 2 skills; its capacity is 1"),
        (skill("used", "run."), LIBRARY._replace(slots=2), None),
    ],
)
def test_the_gate(new, library, reason):
    told = cannot_be_tried(new, library)
    assert told is reason is None or reason in told


def test_what_cannot_be_tried_is_dropped_with_a_reason():
    creator = WithCandidates(None)
    memory = creator.add(creator.init(0), [skill("used"), skill("new")], "x")
    memory, told = creator.propose(memory, LIBRARY, step=1)
    assert told == Refusal("used (x) is not tried: it is in use already")
    memory, told = creator.propose(memory, LIBRARY, step=1)
    assert isinstance(told, Proposal) and memory.waiting == ()
    assert not creator.propose(memory, LIBRARY, step=1)[1].looked


def test_without_a_creator_what_another_one_remembered_is_kept():
    counting, nobody = WithCandidates(Counting()), WithCandidates(None)
    memory = counting.observe(counting.init(0), [EPISODE])
    data = json.loads(json.dumps(counting.dump(memory)))
    kept = nobody.observe(nobody.load(data), [EPISODE])
    assert counting.load(nobody.dump(kept)) == memory
    assert counting.load(nobody.dump(nobody.init(0))).inner == {"next": 0, "seen": 0, "decided": []}
    with pytest.raises(ForeignMemoryError, match="it is another creator's"):
        counting.load(data | {"inner": {"rules": 1}})
