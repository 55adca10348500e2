"""Generation by any server that speaks OpenAI's chat completions."""

from llamabda.adapters.openai.generator import OpenAiGenerator

__all__ = ["OpenAiGenerator"]
