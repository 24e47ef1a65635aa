"""What a view can do for its callers.

Rules:

* A feature is a promise about which services a server answers, not about whether it is healthy.
* Users may bring any `enum.Flag` of their own; `Feature` is the flag of the original's services.
* The texts are those of the original: ``Diagnostics,HashPO``, in the order of definition, nothing for no feature.
"""

from __future__ import annotations

import enum

from viewreg._errors import InvalidValueError, check_type


class Feature(enum.Flag):
    """The services that a view server of the original may offer."""

    DIAGNOSTICS = enum.auto()
    """Statistics, profiles and the log level: the service ``Diagnostics``."""

    CAROUSEL = enum.auto()
    """The facts of a partition, again and again: the service ``Carousel``. Demands a partition."""

    HASH_PO = enum.auto()
    """Facts by predicate and object: the service ``ReadFactsPO``. Demands a partition."""

    HASH_SP = enum.auto()
    """Facts by subject and predicate: the service ``ReadFactsSP``. Demands a partition."""

    @classmethod
    def parse(cls, text: str) -> Feature:
        """Return the features that `text` names: the inverse of `str`.

        Names are separated by commas, with spaces around them or not, each spelled like ``HashSP`` or like ``HASH_SP``.
        An empty text is no feature. Raises `InvalidValueError`, which names the unknown name and the known ones, or
        `InvalidTypeError` for anything but a str.
        """
        check_type("feature", text, str, "a str such as 'Diagnostics,HashSP'")
        features = cls(0)
        for name in map(str.strip, text.split(",") if text.strip() else ()):
            if name not in _BY_NAME:
                raise InvalidValueError(f"feature {name!r}: expected one of {', '.join(_TEXT.values())}")
            features |= _BY_NAME[name]
        return features

    def __str__(self) -> str:
        return ",".join(_TEXT[feature] for feature in self)


_TEXT = {
    Feature.DIAGNOSTICS: "Diagnostics",
    Feature.CAROUSEL: "Carousel",
    Feature.HASH_PO: "HashPO",
    Feature.HASH_SP: "HashSP",
}
_BY_NAME = {text: feature for feature, text in _TEXT.items()} | dict(Feature.__members__)


def feature_text(features: enum.Flag) -> str:
    """Return the text of any flag: what its own ``__str__`` says if its class has one, else ``NAME,OTHER_NAME``.

    For `Feature` that is `str`. Python's default, ``Kind.NAME|OTHER_NAME`` and ``Kind(0)`` for none, would say the
    class again and again and could not be told from a name.
    """
    if type(features).__str__ not in (enum.Flag.__str__, enum.IntFlag.__str__):
        return str(features)
    return ",".join(feature.name or "" for feature in features)
