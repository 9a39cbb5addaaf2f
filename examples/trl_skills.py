"""The skill layer inside TRL's GRPOTrainer, whose policy learns while its skills are compared.

    pip install torch trl reskill-jax
    python examples/trl_skills.py

A random model of a few thousand parameters plays a stub: two buttons pressed one after the other,
and a skill that fires after the first. Arms are drawn per group, the skill's text stands in the
context at the moment its trigger fires (and is not learned from), the outcome goes back, and after
a few steps the store decides. What is yours to write is `rollout` and `play`.
"""

import json
import random
import tempfile
from collections import Counter
from pathlib import Path

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from trl import GRPOConfig, GRPOTrainer

from reskill_jax.agents.rendering import render_note
from reskill_jax.agents.trials import AgentEpisode, AgentStep, SkillTrials, TrialSettings
from reskill_jax.skills.skill import Skill, Trigger

GROUP, TASKS, STEPS = 8, 4, 5  # rollouts of a task, tasks of a step, steps
SKILL = Skill("press-twice", "After a press.", "press again.", Trigger("action_pattern", "^press"))


class Buttons:
    """A stub: whoever reads the skill wins more often. It counts for itself."""

    counted: Counter = Counter()  # (arm, won) -> episodes

    def __init__(self, draw):
        self.draw, self.chance = draw, 0.2

    def step(self, text: str, skills) -> str:
        self.chance += 0.6 * bool(skills)
        return f"You pressed {len(text)} times."

    def judge(self) -> bool:
        won = random.Random(self.draw.id).random() < self.chance
        self.counted[self.draw.arm, won] += 1
        return won


def play(trainer, draw) -> dict:
    """One episode: tokens, which of them the model chose, their log-probabilities, the outcome."""
    encode, model = trainer.processing_class.encode, trainer.model
    prompt, said, mask, log_probs = encode(draw.text + "\n"), [], [], []
    buttons, steps, observation = Buttons(draw), [], draw.text
    for turn in range(2):
        last = steps[-1].action if steps else None
        skills = draw.firing(turn=turn, last_action=last, observation=observation)
        note = encode(f"{observation}\n{render_note(skills)}\n> ")
        said, mask, log_probs = said + note, mask + [0] * len(note), log_probs + [0.0] * len(note)
        chosen = []
        for _ in range(3):
            ids = torch.tensor([prompt + said + chosen], device=model.device)
            with torch.no_grad():
                log_p = model(ids).logits[0, -1].log_softmax(-1)
            chosen.append(int(torch.multinomial(log_p.exp(), 1)))
            log_probs.append(float(log_p[chosen[-1]]))
        said, mask = said + chosen, mask + [1] * 3
        observation = buttons.step(trainer.processing_class.decode(chosen), skills)
        names = tuple(skill.name for skill in skills)
        steps.append(AgentStep(f"press {turn}", observation, names))
    won = buttons.judge()
    trials.report(AgentEpisode(draw.id, tuple(steps), won, framework="trl"))
    told = {"prompt_ids": prompt, "completion_ids": said, "logprobs": log_probs, "env_mask": mask}
    return told | {"won": float(won)}


def rollout(prompts, trainer) -> dict:
    """What GRPOTrainer calls: a prompt stands there as often as its group is large."""
    played = [play(trainer, trials.draw(prompt)) for prompt in prompts]
    return {key: [one[key] for one in played] for key in played[0]}


def reward(won, **_) -> list[float]:
    """The outcome that the rollout told."""
    return won


# --- a model, a tokenizer and tasks, as small as can be -------------------------------------------


def tiny_model():
    """A random model that speaks bytes."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: n for n, letter in enumerate(["<pad>", "<eos>", *letters])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<eos>")
    config = Qwen2Config(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        pad_token_id=0,
        eos_token_id=1,
    )
    torch.manual_seed(0)
    return Qwen2ForCausalLM(config), tokenizer


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        settings = TrialSettings(
            group_size=GROUP, step_episodes=GROUP * TASKS, gain=0.3, min_episodes=GROUP * TASKS
        )
        trials = SkillTrials(Path(folder) / "skills.sqlite", settings=settings, creator=None)
        trials.propose([SKILL])
        torch.set_num_threads(1)
        model, tokenizer = tiny_model()
        arguments = GRPOConfig(
            output_dir=folder,
            max_steps=STEPS,
            per_device_train_batch_size=GROUP * TASKS,
            num_generations=GROUP,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
        )
        tasks = Dataset.from_dict({"prompt": [f"press the button {n}" for n in range(64)]})
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=reward,
            args=arguments,
            train_dataset=tasks,
            processing_class=tokenizer,
            rollout_func=rollout,
        )
        trainer.train()
        decided = [e for e in trials.lifecycle() if e["event"] in ("accepted", "rejected")]
        arms, with_skill = Counter(), Counter()
        for line in trials.episodes():
            arms[line["arm"], bool(line["success"])] += 1
            with_skill[line["task"], line["repetition"] // GROUP] += line["arm"]
        told = {
            "decision": [(e["step"], e["event"], e["successes"], e["trials"]) for e in decided],
            "with_skill_per_group": list(with_skill.values()),
            "counts_agree": arms == Buttons.counted,
            "bank": [skill.name for skill in trials.skills],
        }
        print(json.dumps(told))
