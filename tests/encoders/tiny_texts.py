"""A sentence encoder with random weights, saved as the published ones are."""

import json
from pathlib import Path
from typing import Any

LETTERS = [chr(code) for code in range(33, 127)]

WORDS = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *("nearby", "points", "of", "interest", "are", "type", "with", "distance"),
    *("cafe", "building", "yes", "amenity", "highway", "name", "primary", "house"),
]


def save_sentence_model(
    folder: Path, pooling: dict[str, Any] | None = None, *, longest: int = 128, pooler: bool = True
) -> Path:
    """Save a BERT of 32 columns and its WordPiece tokenizer; return the folder.

    Args:
        folder: where to.
        pooling: of sentence-transformers' file; none is written for None.
        longest: tokens of a text.
        pooler: with the weights of BERT's pooling layer, which no sentence encoder uses.
    """
    import torch
    import transformers

    folder.mkdir(parents=True)
    words = [*WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    tokenizer = transformers.BertTokenizer.from_pretrained(folder, model_max_length=longest)
    tokenizer.save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=longest,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.BertModel(config, add_pooling_layer=pooler)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4)  # freshly made, all texts would look alike
    model.save_pretrained(folder)
    if pooling is not None:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder
