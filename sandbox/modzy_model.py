"""The small model behind the Modzy stand-in: what it says is a function of the real content.

Text gets a word-list sentiment, anything else is identified by its first bytes. Content is read
as a stream: memory use does not depend on its size.
"""

from __future__ import annotations

import codecs
import collections
import dataclasses
import hashlib
import re
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

#: How much of a text is analysed, in bytes; the digest always covers the whole content.
ANALYSED_BYTES = 1024 * 1024

_GIBIBYTE = 1024**3


def _word_list(text: str) -> frozenset[str]:
    return frozenset(text.split())


_POSITIVE = _word_list(
    "amazing beautiful best better calm clean delight delighted easy excellent fair fantastic fast "
    "fine friendly glad good great happy helpful like love loved lovely nice perfect pleasant "
    "pleased quick recommend reliable safe smooth success superb thanks useful warm win "
    "wonderful"
)
_NEGATIVE = _word_list(
    "angry annoying awful bad broken bug cold complain crash delay dirty disappointed "
    "disappointing error fail failed failure fault hate hated horrible late lost mistake noisy "
    "pain poor problem rude sad slow sorry terrible ugly unhappy useless worse worst "
    "wrong"
)
_STOP_WORDS = _word_list(
    "a an and are as at be but by for from had has have he her his i in is it its my not of on or "
    "our she so that the their they this to was we were will with you your"
)
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")

#: Leading bytes of common formats, from the IANA registrations and format specifications.
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"%PDF-", "application/pdf"),
    (b"PK\x03\x04", "application/zip"),
    (b"PK\x05\x06", "application/zip"),  # an empty archive
    (b"\x1f\x8b", "application/gzip"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
    (b"ID3", "audio/mpeg"),
)
_RIFF_FORMS = {b"WAVE": "audio/wav", b"WEBP": "image/webp", b"AVI ": "video/x-msvideo"}


@dataclasses.dataclass(frozen=True, slots=True)
class ModelInput:
    """An input of a model version; ``maximum_size`` in bytes."""

    name: str
    accepted_media_types: tuple[str, ...]
    description: str
    maximum_size: int = 10 * _GIBIBYTE


@dataclasses.dataclass(frozen=True, slots=True)
class ModelVersion:
    """A model version of the catalogue."""

    identifier: str
    version: str
    name: str
    inputs: tuple[ModelInput, ...]


_TEXT = ModelInput("input.txt", ("text/plain", "application/octet-stream"), "A text in UTF-8.")
_ANYTHING = ModelInput("input", ("application/octet-stream",), "A file of any kind.")
_PAIR = (
    ModelInput("document.txt", ("text/plain",), "A text in UTF-8; may be left out."),
    ModelInput("image", ("image/png", "image/jpeg"), "A picture; may be left out."),
)

#: All model versions, oldest version of a model first.
CATALOGUE: tuple[ModelVersion, ...] = (
    ModelVersion("ed542963de", "0.0.27", "Sentiment Analysis", (_TEXT,)),
    ModelVersion("ed542963de", "1.0.1", "Sentiment Analysis", (_TEXT,)),
    ModelVersion("5f1c0de7a9", "1.0.0", "File Inspection", (_ANYTHING,)),
    ModelVersion("2b9a6e04d1", "2.1.0", "Document and Image", _PAIR),
)


class TextDetector:
    """Tells, chunk by chunk, whether content is text: UTF-8 without a NUL character."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._is_text = True

    def feed(self, chunk: bytes, *, final: bool = False) -> None:
        """Look at the next chunk; ``final`` says that the content ends with it."""
        if not self._is_text:
            return
        try:
            decoded = self._decoder.decode(chunk, final)
        except UnicodeDecodeError:
            self._is_text = False
        else:
            self._is_text = "\x00" not in decoded

    @property
    def is_text(self) -> bool:
        """Whether everything seen so far is text."""
        return self._is_text


def analyse(chunks: Iterable[bytes]) -> dict[str, Any]:
    """What the model says about one file, as JSON-ready members.

    Always: ``kind`` ("text" or "binary"), ``mediaType``, ``size`` in bytes and ``sha256``.
    """
    digest = hashlib.sha256()
    detector = TextDetector()
    head = bytearray()
    size = 0
    for chunk in chunks:
        digest.update(chunk)
        detector.feed(chunk)
        head += chunk[: ANALYSED_BYTES - len(head)]
        size += len(chunk)
    detector.feed(b"", final=True)
    findings: dict[str, Any] = {"size": size, "sha256": digest.hexdigest()}
    start = bytes(head)
    media_type = media_type_of(start)
    if detector.is_text and media_type != "application/pdf":
        text = start.decode("utf-8", errors="ignore")  # may end inside a character
        findings |= {"kind": "text", "mediaType": "text/plain", "analysedBytes": len(start)}
        return findings | sentiment_of(text)
    return findings | {"kind": "binary", "mediaType": media_type} | _details(media_type, start)


def explain(findings: dict[str, Any]) -> dict[str, Any]:
    """Which evidence led to the findings."""
    if findings["kind"] == "binary":
        return {"decidedBy": "leading bytes", "mediaType": findings["mediaType"]}
    sentiment = findings["sentiment"]
    return {"decidedBy": "word list", "evidence": sentiment["evidence"]}


def sentiment_of(text: str) -> dict[str, Any]:
    """Word-list sentiment; the score runs from -1 (all negative) to 1 (all positive)."""
    words = collections.Counter(word.casefold() for word in _WORD.findall(text))
    positive = {word: count for word, count in words.items() if word in _POSITIVE}
    negative = {word: count for word, count in words.items() if word in _NEGATIVE}
    ups, downs = sum(positive.values()), sum(negative.values())
    score = (ups - downs) / (ups + downs) if ups + downs else 0.0
    label = "positive" if score > 0 else "negative" if score < 0 else "neutral"
    telling = collections.Counter(
        {word: count for word, count in words.items() if word not in _STOP_WORDS}
    )
    return {
        "wordCount": words.total(),
        "topWords": [{"word": word, "count": count} for word, count in telling.most_common(10)],
        "sentiment": {
            "label": label,
            "score": round(score, 4),
            "positive": ups,
            "negative": downs,
            "neutral": words.total() - ups - downs,
            "evidence": positive | negative,
        },
    }


def media_type_of(start: bytes) -> str:
    """Media type by leading bytes; ``application/octet-stream`` when nothing fits."""
    for magic, media_type in _MAGIC:
        if start.startswith(magic):
            return media_type
    if start.startswith(b"RIFF"):
        return _RIFF_FORMS.get(start[8:12], "application/octet-stream")
    if start[4:8] == b"ftyp":  # ISO base media file format, ISO/IEC 14496-12
        return "video/mp4"
    return "application/octet-stream"


def _details(media_type: str, start: bytes) -> dict[str, Any]:
    if media_type == "image/png" and start[12:16] == b"IHDR" and len(start) >= 24:
        width, height = struct.unpack(">II", start[16:24])
        return {"width": width, "height": height}
    if media_type == "application/pdf" and (version := re.match(rb"%PDF-(\d\.\d)", start)):
        return {"pdfVersion": version[1].decode("ascii")}
    return {}
