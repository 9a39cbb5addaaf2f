"""The skill layer inside Tunix's agentic GRPO, whose policy learns while its skills are compared.

    pip install google-tunix reskill-jax
    python examples/tunix_skills.py

A random model of a few thousand parameters plays a stub: two buttons pressed one after the other,
and a skill that fires after the first. What is yours to write is the environment: it draws when it
is reset, puts the text of the skills that fire behind what it says (which is not learned from), and
reports when it is over. Arms are drawn per group.
"""

import json
import random
import tempfile
from collections import Counter
from pathlib import Path

import grain
import jax
import optax
from flax import nnx
from tunix.models.qwen3 import model as qwen3
from tunix.rl import rl_cluster
from tunix.rl.agentic.agentic_grpo_learner import GRPOConfig, GRPOLearner
from tunix.rl.agentic.environments.base_environment import BaseTaskEnv, EnvStepResult
from tunix.rl.agentic.parser.chat_template_parser.parser import QwenChatTemplateParser
from tunix.rl.rollout.base_rollout import RolloutConfig

from reskill_jax.agents.rendering import render_note
from reskill_jax.agents.trials import AgentEpisode, AgentStep, SkillTrials, TrialSettings
from reskill_jax.skills.skill import Skill, Trigger

GROUP, TASKS, STEPS = 8, 2, 5  # rollouts of a task, tasks of a step, steps
SKILL = Skill("press-twice", "After a press.", "press again.", Trigger("action_pattern", "^press"))


class SkillEnv(BaseTaskEnv):
    """Buttons, with skills. Whoever reads the skill wins more often. It counts for itself."""

    counted: Counter = Counter()  # (arm, won) -> episodes

    def __init__(self, task, *, trials, **more):
        super().__init__(task, max_steps=2, **more)
        self.trials = trials

    def _initial_observation(self):
        told = self.task["prompts"]
        text = self.observation = told if isinstance(told, str) else str(told[0])
        self.draw, self.steps, self.chance = self.trials.draw(text), [], 0.2
        return {**self.task, "prompts": self._with_skills(text)}

    def _with_skills(self, text):
        last = self.steps[-1].action if self.steps else None
        self.shown = self.draw.firing(
            turn=len(self.steps), last_action=last, observation=self.observation
        )
        self.chance += 0.6 * bool(self.shown)
        return f"{text}\n{render_note(self.shown)}".strip()

    def _step_impl(self, action):
        self.observation = f"You pressed {len(str(action))} times."
        names = tuple(skill.name for skill in self.shown)
        self.steps.append(AgentStep(f"press {len(self.steps)}", self.observation, names))
        told, over = self._with_skills(self.observation), len(self.steps) == self.max_steps
        won = over and self._judge()
        return EnvStepResult(told, float(won), over, {})

    def _judge(self):
        won = random.Random(self.draw.id).random() < self.chance
        self.counted[self.draw.arm, won] += 1
        self.trials.report(AgentEpisode(self.draw.id, tuple(self.steps), won, framework="tunix"))
        return won


# --- a model and a tokenizer, as small as can be --------------------------------------------------


class Bytes:
    """A token for every byte, and the marks of Qwen's chat format."""

    marks = ("<pad>", "<|endoftext|>", "<|im_start|>", "<|im_end|>")
    bos_token, eos_token, pad_token = "", "<|im_end|>", "<pad>"
    name_or_path = "bytes"

    def encode(self, text, **_):
        found, at = [], 0
        while at < len(text):
            mark = next((m for m in self.marks if text.startswith(m, at)), None)
            found += [self.marks.index(mark)] if mark else [4 + b for b in text[at].encode()]
            at += len(mark or text[at])
        return found

    def decode(self, ids, **_):
        return bytes(n - 4 for n in map(int, ids) if 4 <= n < 260).decode("utf-8", "replace")

    def bos_id(self):
        return 1

    def eos_id(self):
        return 3

    def pad_id(self):
        return 0


def tiny_model(seed):
    """A random model."""
    config = qwen3.ModelConfig(
        num_layers=1,
        vocab_size=260,
        embed_dim=16,
        hidden_dim=32,
        num_heads=2,
        head_dim=8,
        num_kv_heads=1,
        rope_theta=10_000,
        norm_eps=1e-6,
    )
    return qwen3.Qwen3(config, rngs=nnx.Rngs(seed))


def make_learner(trials):
    """Tunix's learner around the environment."""
    auto = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh((1, 1), ("fsdp", "tp"), axis_types=auto)
    roles = (rl_cluster.Role.ACTOR, rl_cluster.Role.REFERENCE, rl_cluster.Role.ROLLOUT)
    tokenizer = Bytes()
    cluster = rl_cluster.RLCluster(
        actor=tiny_model(0),
        reference=tiny_model(0),
        tokenizer=tokenizer,
        cluster_config=rl_cluster.ClusterConfig(
            role_to_mesh=dict.fromkeys(roles, mesh),
            training_config=rl_cluster.RLTrainingConfig(
                actor_optimizer=optax.adam(1e-3),
                eval_every_n_steps=1000,
                max_steps=STEPS,
                mini_batch_size=TASKS,
                train_micro_batch_size=TASKS,
            ),
            rollout_config=RolloutConfig(
                max_tokens_to_generate=512,
                eos_tokens=[3, *range(4, 260, 4)],  # a random model would not end by itself
                max_prompt_length=512,
                kv_cache_size=1024,
                return_logprobs=True,
            ),
        ),
    )
    return GRPOLearner(
        rl_cluster=cluster,
        algo_config=GRPOConfig(
            num_generations=GROUP, beta=0.0, max_response_length=512, max_concurrency=GROUP
        ),
        chat_parser=QwenChatTemplateParser(tokenizer),
        env_class=SkillEnv,
        env_kwargs={"trials": trials},
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        settings = TrialSettings(
            group_size=GROUP, step_episodes=GROUP * TASKS, gain=0.4, min_episodes=GROUP * TASKS
        )
        trials = SkillTrials(Path(folder) / "skills.sqlite", settings=settings, creator=None)
        trials.propose([SKILL])
        tasks = [{"prompts": f"press the button {n}"} for n in range(TASKS * STEPS)]
        data = grain.MapDataset.source(tasks).batch(TASKS)
        make_learner(trials).train(data)
        decided = [e for e in trials.lifecycle() if e["event"] in ("accepted", "rejected")]
        arms, with_skill = Counter(), Counter()
        for line in trials.episodes():
            arms[line["arm"], bool(line["success"])] += 1
            with_skill[line["task"], line["repetition"] // GROUP] += line["arm"]
        told = {
            "decision": [(e["step"], e["event"], e["successes"], e["trials"]) for e in decided],
            "with_skill_per_group": list(with_skill.values()),
            "counts_agree": arms == SkillEnv.counted,
            "bank": [skill.name for skill in trials.skills],
        }
        print(json.dumps(told))
