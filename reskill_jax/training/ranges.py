"""The numbers that settings may be, each setting by itself."""

from reskill_jax.algorithms.names import KINDS
from reskill_jax.skills.skill import MAX_OPERATIONS

RESERVOIR_CAPACITY = 200  # episodes the creator keeps
MAX_SEED = 2**32 - 1  # JAX's keys are made of 32 bits: more would be another seed's run
MAX_INTEGER = 2**31 - 1
MAX_SIZE = 2**24  # of what is played, kept or drawn from at once
MAX_SKILLS = 256
MAX_RANK = 4096  # of adapters
MAX_WIDTH = 2**16  # of a hidden layer
MAX_WORKERS = 1024
MAX_CONTEXTS = 64  # of an episode: for each the update has a program
MAX_TRIALS = 5  # at once: a version of the bank for every choice of them
MAX_CALLS = 64  # to a language model at once
MAX_THINGS = 256  # of a kind in a room: far more than ALFRED's largest rooms have

AT_LEAST_ONE = (
    *("steps", "max_turns", "context_length", "train_games", "groups", "group_size"),
    *("optimizer.minibatches", "optimizer.microbatch", "slots", "trial.concurrent"),
    *("trial.min_steps", "evidence.rows", "checkpoint_every", "keep", "prompt.contexts"),
    *("trial.min_episodes", "trial.max_steps", "creator.max_operations", "creator.reservoir"),
    *("algorithm.value_width", "trial.evaluation_tasks", "creator.retire_after", "eval_tasks"),
    *("prompt.answer_tokens", "prompt.message_tokens", "prompt.skill_tokens", "sessions.rows"),
    *("creator.contrasts", "creator.parallel", "creator.reply_tokens", "creator.attempts"),
)
NOT_NEGATIVE = (
    *("seed", "algorithm.kl_weight", "temperature", "creator.cooldown", "trial.retire_margin"),
    *("eval_every", "policy_from", "skills_from", "policy_until", "skills_until"),
    *("optimizer.warmup_steps", "optimizer.weight_decay"),
    *("algorithm.step_weight", "algorithm.value_clip", "algorithm.beta"),
    *("model.lora_rank", "prompt.thinking_tokens", "prompt.invalid_penalty", "sessions.workers"),
    *("sessions.patience", "evidence.every", "trial.control"),
    *("creator.lag", "creator.input_price", "creator.output_price"),
    *("creator.call_budget", "creator.token_budget"),
)
POSITIVE = (
    *("sessions.time_limit", "sessions.open_limit", "creator.call_seconds"),
    *("optimizer.learning_rate", "optimizer.final_learning_rate", "optimizer.max_grad_norm"),
    *("algorithm.clip_low", "algorithm.clip_high", "model.lora_alpha"),
    "algorithm.value_learning_rate",
)
AT_MOST = {
    "seed": MAX_SEED,
    "slots": MAX_SKILLS,
    "model.lora_rank": MAX_RANK,
    "algorithm.value_width": MAX_WIDTH,
    "trial.concurrent": MAX_TRIALS,
    "creator.max_operations": MAX_OPERATIONS,
    "sessions.workers": MAX_WORKERS,
    "prompt.contexts": MAX_CONTEXTS,
    "creator.parallel": MAX_CALLS,
    "creator.contrasts": RESERVOIR_CAPACITY,
    "creator.attempts": 10,
    **dict.fromkeys(
        (
            *("max_turns", "context_length", "train_games", "groups", "group_size", "eval_tasks"),
            *("trial.max_steps", "trial.evaluation_tasks", "trial.control"),
            *("prompt.answer_tokens", "prompt.thinking_tokens"),
            *("prompt.message_tokens", "prompt.skill_tokens", "sessions.rows"),
            "evidence.rows",
        ),
        MAX_SIZE,
    ),
}
TEXTS = (
    *("name", "root", "world", "games", "reward", "bank", "mirror", "model.path"),
    *("creator.url", "creator.model", "creator.recording", "creator.kind", "algorithm.kind"),
)
# Setting -> the names it may be; MODULE:CLASS is something of one's own.
NAMES = {
    "algorithm.kind": KINDS,
    "creator.kind": ("rules", "llm", "self", "replay"),
}
# Setting -> the numbers it may be: from, to, and whether each end belongs to them.
INTERVALS = {
    "trial.gain": (0, 0.5, "()"),
    "trial.false_accept": (0, 0.5, "()"),
    "trial.false_reject": (0, 0.5, "()"),
    "trial.floor": (0, 0.5, "(]"),
    "internalize": (0, 1, "[]"),
    "algorithm.discount": (0, 1, "[]"),
    "algorithm.trace_decay": (0, 1, "[]"),
    "sessions.max_invalid": (0, 1, "[]"),
    "creator.least_chance": (0, 1, "[)"),
    "creator.trigger_rate": (0, 1, "[]"),
}
