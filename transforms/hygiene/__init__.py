"""What a run may use: duplicates out, splits that no user straddles."""

from tilth.transforms.hygiene.assign import SplitConfig, assign, keys
from tilth.transforms.hygiene.hashing import id_hashes, mixed, text_hashes

__all__ = ["SplitConfig", "assign", "id_hashes", "keys", "mixed", "text_hashes"]
