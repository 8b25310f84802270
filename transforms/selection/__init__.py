"""Which rows to keep: a few prompts that stand for many."""
