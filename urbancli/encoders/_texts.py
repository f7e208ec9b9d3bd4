"""Texts as vectors, by any sentence encoder of the kinds that `transformers` has as plain encoders.

A text is read up to the model's own limit of tokens; what is longer is cut there, and counted.
Texts are sorted by length before they are put into batches, so that little of a batch is padding,
and a text that was encoded lately is remembered: a city repeats few distinct `key=value`. A vector
may differ in its last digits with the other texts of its batch and with the device.
"""

import functools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from urbancli.encoders import base
from urbancli.encoders._weights import (
    Weights,
    device,
    find,
    hush,
    load_model,
    portable,
    read_facts,
    reason,
)
from urbancli.errors import UrbanError, UsageError

if TYPE_CHECKING:
    import torch

BATCH_TOKENS = {"cpu": 8192, "cuda": 131072}
"""Tokens of a batch with its padding, at most, unless one text alone has more."""

MEMORY_BYTES = 256 << 20
"""Vectors that a model remembers, about."""

LOG = logging.getLogger(__name__)

DEFAULT_MODEL = "BAAI/bge-small-en-v1.5"
DEFAULT_WIDTH = 384

VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "tokenizer.model",
                "sentencepiece.bpe.model")  # fmt: skip
"""Files of which a tokenizer has at least one."""

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertModel", {"add_pooling_layer": False}),
    "roberta": ("RobertaModel", {"add_pooling_layer": False}),
    "xlm-roberta": ("XLMRobertaModel", {"add_pooling_layer": False}),
    "mpnet": ("MPNetModel", {"add_pooling_layer": False}),
    "distilbert": ("DistilBertModel", {}),
    "modernbert": ("ModernBertModel", {}),
}
"""The `model_type` of sentence encoders, their class, and what keeps off its unused last layer."""


class SentenceModel:
    """A sentence encoder, loaded.

    The vector of a text is that of its first token (`cls`), or the mean over its tokens (`mean`),
    of the last layer, scaled to length 1.

    Attributes:
        width: of a vector.
        longest: tokens of a text that are read, its marks of beginning and end included.
        encoded: texts that went through the model so far; a repeated text once.
        truncated: how many of those were longer than `longest`.

    Args:
        weights: of a model of one of `KINDS`, with its tokenizer.
        pool: `cls`, `mean`, or `auto`: what `1_Pooling/config.json` of sentence-transformers says.
        precision: `float32`, or `bf16` for matrix products in bfloat16.

    Raises:
        UrbanError: the files are broken or not whole.
        UsageError: they are of another kind of model; or `auto`, and they do not say.
    """

    def __init__(self, weights: Weights, pool: str = "auto", precision: str = "float32") -> None:
        self._pool = pooling_of(weights) if pool == "auto" else pool
        self._bf16 = precision == "bf16"
        self._device = device()
        kind = str(read_facts(weights).get("model_type"))
        name, more = KINDS.get(kind, ("", {}))
        self._model = load_model(name, weights, tuple(KINDS), dtype="float32", **more)
        self._tokenizer = _tokenizer(weights)
        config = self._model.config
        self.width: int = config.hidden_size
        self.longest: int = _longest(weights, kind, config, self._tokenizer)
        self.encoded = 0
        self.truncated = 0
        self._remembered: dict[str, npt.NDArray[np.float32]] = {}

    def vectors(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return the vectors of texts, (N, width), in their order; each distinct text is encoded
        once."""
        distinct = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        new = [text for text in distinct if text not in self._remembered]
        for text, vector in zip(new, self._encode(new), strict=True):
            self._remembered[text] = vector.copy()
        table = np.empty((len(distinct), self.width), np.float32)
        for text, number in distinct.items():
            table[number] = self._remembered[text]
        while len(self._remembered) * self.width * 4 > MEMORY_BYTES:
            del self._remembered[next(iter(self._remembered))]
        return table[[distinct[text] for text in texts]]

    def _encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        import torch

        out = np.empty((len(texts), self.width), np.float32)
        if not texts:
            return out
        tokens = self._tokenizer(list(texts), truncation=True, max_length=self.longest)["input_ids"]
        self.encoded += len(texts)
        full = [text for text, ids in zip(texts, tokens, strict=True) if len(ids) >= self.longest]
        cut = sum(
            len(self._tokenizer(text, verbose=False)["input_ids"]) > self.longest for text in full
        )
        self.truncated += cut
        if cut:
            LOG.warning(
                "%d of %d texts are longer than the %d tokens that the model reads: they are cut",
                cut, len(texts), self.longest,
            )  # fmt: skip
        for batch in batches([len(ids) for ids in tokens], BATCH_TOKENS[self._device]):
            padded = self._tokenizer.pad(
                {"input_ids": [tokens[number] for number in batch]}, return_tensors="pt"
            ).to(self._device)
            with (
                torch.inference_mode(),
                torch.autocast(self._device, torch.bfloat16, enabled=self._bf16),
            ):
                hidden = self._model(**padded).last_hidden_state
            out[batch] = self._pooled(hidden.float(), padded["attention_mask"]).cpu().numpy()
        return out

    def _pooled(self, hidden: "torch.Tensor", mask: "torch.Tensor") -> "torch.Tensor":
        """Return the vectors (B, d) of length 1 of token vectors (B, T, d), mask (B, T)."""
        import torch

        if self._pool == "cls":
            pooled = hidden[:, 0]
        else:
            weights = mask[:, :, None].to(hidden.dtype)
            pooled = (hidden * weights).sum(dim=1) / weights.sum(dim=1)
        return torch.nn.functional.normalize(pooled, dim=1)


@dataclass(frozen=True)
class TextEncoder(base.Encoder):
    """What encoders of texts share: which model, and how it is used.

    Settings:
        model: a sentence encoder of one of `KINDS`, see `_weights`.
        pool: see `SentenceModel`.
        precision: likewise.
    """

    licence: ClassVar[str] = "MIT"
    model: str = DEFAULT_MODEL
    pool: Literal["auto", "cls", "mean"] = "auto"
    precision: Literal["float32", "bf16"] = "float32"

    def config(self) -> dict[str, Any]:
        """Return the settings; a folder of weights by its portable name."""
        return {**super().config(), "model": portable(self.model)}

    def weights(self) -> str:
        """Return the SHA-256 of the model's files."""
        return find(self.model).sha256

    def loaded(self) -> SentenceModel:
        """Return the model."""
        return _sentence_model(find(self.model), self.pool, self.precision)


@functools.lru_cache(maxsize=2)
def _sentence_model(weights: Weights, pool: str, precision: str) -> SentenceModel:
    return SentenceModel(weights, pool, precision)


def pooling_of(weights: Weights) -> str:
    """Return how the vectors of a model's tokens become one, as its files say: `cls` or `mean`.

    Raises:
        UsageError: they do not say, or say something else.
    """
    facts = read_facts(weights, "1_Pooling/config.json")
    modes = [name.removeprefix("pooling_mode_") for name, on in facts.items() if on is True]
    modes = [facts["pooling_mode"]] if "pooling_mode" in facts else modes
    named = {"cls_token": "cls", "cls": "cls", "mean_tokens": "mean", "mean": "mean"}
    pools = [named.get(str(mode), str(mode)) for mode in modes if mode != "include_prompt"]
    if pools not in (["cls"], ["mean"]):
        said = f"names {' and '.join(pools)}" if pools else "is missing or names none"
        raise UsageError(
            f"how '{weights.folder}' pools its tokens is not known, its 1_Pooling/config.json "
            f"{said}: add pool=cls (as BGE does) or pool=mean (as most others do)"
        )
    return pools[0]


def batches(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Yield the numbers of texts in batches: shortest first, so that there is little padding.

    Args:
        lengths: tokens of each text.
        tokens: of a batch with its padding, at most; a longer text is a batch of its own.
    """
    batch: list[int] = []
    for number in np.argsort(lengths, kind="stable").tolist():
        if batch and (len(batch) + 1) * lengths[number] > tokens:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def _longest(weights: Weights, kind: str, config: Any, tokenizer: Any) -> int:
    """Return how many tokens of a text a model reads.

    Raises:
        UrbanError: its files do not say, or say what no text fits in.
    """
    try:
        # Of the kin of RoBERTa, positions are counted from after the padding's; MPNet's is 1.
        taken = config.pad_token_id + 1 if kind in {"roberta", "xlm-roberta"} else 0
        taken = 2 if kind == "mpnet" else taken
        longest = int(min(tokenizer.model_max_length, config.max_position_embeddings - taken))
    except (TypeError, ValueError):
        longest = 0
    if longest < 1:
        raise UrbanError(
            f"how many tokens '{weights.folder}' reads is not known: mend model_max_length in its "
            "tokenizer_config.json, and max_position_embeddings and pad_token_id in its config.json"
        )
    return longest


def _tokenizer(weights: Weights) -> Any:
    from transformers import AutoTokenizer

    hush()
    try:
        if not any((weights.folder / name).is_file() for name in VOCABULARIES):
            # transformers would make up one without words.
            raise OSError("none of its files is there")
        return AutoTokenizer.from_pretrained(weights.folder, local_files_only=True)
    except Exception as err:  # transformers lets through whatever a strange setting runs into
        raise UrbanError(
            f"cannot load the tokenizer in '{weights.folder}' ({reason(err)}): bring "
            "tokenizer.json and tokenizer_config.json beside the weights"
        ) from err
