"""The gate: what a model writes passes the same checks as what the rules write."""

from reskill_jax.creators.creator import Library
from reskill_jax.creators.rules.author import skill_key
from reskill_jax.creators.rules.conflict import contradicts_any
from reskill_jax.creators.rules.creator import RulesCreator
from reskill_jax.creators.rules.drafts import brings, considered, names_of
from reskill_jax.creators.rules.recommend import Draft
from reskill_jax.creators.rules.state import CreatorState
from reskill_jax.creators.rules.verify import verify
from reskill_jax.worlds.vocabulary import ActionVocabulary

from .state import Written


def draft_of(written: Written, vocabulary: ActionVocabulary) -> Draft:
    """Written operations as the draft that the gate looks at. They carry no score of evidence."""
    keys, directives = [], []
    for operation in written.operations:
        if operation.skill is None:
            keys.append(f"delete|{operation.name}")
            continue
        keys.append(skill_key(operation.skill))
        directive = vocabulary.directive_of(operation.skill)
        if directive is not None:
            directives.append(directive)
    return Draft(
        operations=written.operations,
        keys=tuple(keys),
        directives=tuple(directives),
        score=0.0,
        value=0.0,
        reason=written.reason,
    )


def refused(
    draft: Draft,
    state: CreatorState,
    library: Library,
    rules: RulesCreator,
    vocabulary: ActionVocabulary,
) -> str | None:
    """Why a draft must not be tested; None = it may be."""
    tested = library.under_test
    others = [skill for skill in tested.values() if skill is not None]
    untouchable = set(tested) | {skill.name for skill in others}
    if clash := sorted(names_of(draft) & untouchable):
        return f"{clash[0]} is under test"
    if len(draft.operations) > rules.settings.max_operations:
        return f"a proposal makes at most {rules.settings.max_operations} changes"
    if not rules.settings.contradictions and any(
        contradicts_any(skill, others, state.reservoir.episodes, vocabulary)
        for skill in brings(draft)
    ):
        return "it contradicts what is under test"
    return verify(
        draft,
        state,
        considered(library.skills, tested),
        vocabulary,
        rules.compile_trigger,
        library.slots,
        rules.settings,
    )
