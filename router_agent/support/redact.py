"""Takes secrets out of what leaves a router.

Two ways that back each other up:

- *Where a secret stands.* Each line of a configuration that has a word for a secret loses all that follows
  the word: passwords of FRR, ExaBGP and BIRD (TCP MD5 and TCP-AO), keys of routing protocols, communities of
  SNMP, and any word like ``password``, ``secret``, ``token``, ``api_key`` in whatever syntax. Private keys in
  PEM and blocks of ansible-vault go whole, and so do credentials in URLs and HTTP headers.
- *What a secret is.* What followed those words in the configuration is looked for everywhere else, in logs
  and in answers too, and in the forms in which programs quote it (JSON, URLs, base64).

`Secrets.found_in` says whether anything is left; a bundle with anything left is not written.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator
from ipaddress import ip_network
from urllib.parse import quote, quote_plus

MARKS = ("<removed>", "[***]", "{---}", "(...)", "~~~~", "=//=")
"""What stands for a secret: the first that has no secret of this host in it."""

_CLOSING = ";,{}[]() \t"
"""What ends a value in one syntax or another."""
_OPENING = "\"' \t:="
_BARE_MARKS = frozenset(mark.rstrip(_CLOSING) for mark in MARKS)

_SHORT = 4
"""Characters: a shorter secret is looked for as a word of its own, not inside of words."""

_ROUNDS = 50

ORDINARY = frozenset(
    (
        *("true", "false", "yes", "no", "on", "off", "none", "null", "auto", "default", "unset"),
        *("enable", "enabled", "disable", "disabled", "required", "optional"),
    )
)
"""Settings, not secrets: removed where they stand, not looked for elsewhere."""

_ROUTING = (
    r"authentication-key",
    r"message-digest-key\s+\d+\s+md5",
    r"authentication\s+string",
    r"nhrp\s+authentication",
    r"key-id\s+\d+\s+hash-algo\s+\S+\s+key",
    r"key-string",
    r"md5-password",
)
"""Commands of routing daemons, after which the secret follows."""

_SNMP = (
    r"snmp-server\s+(?:community|user\s+\S+)",
    r"(?:ro|rw)community6?",
    r"com2sec6?",
    r"trapcommunity",
    r"(?:trap2?|inform)sink",
    r"createuser",
    r"usmuser",
)
"""Lines of snmpd.conf(5) with communities and passwords."""

_WORDS = (
    r"(?:passw(?:or)?d|passphrase|passcode|secret|token|credential|private[_-]?key|pre[_-]?shared[_-]?key|"
    r"api[_-]?key|access[_-]?key|auth[_-]?key|encryption[_-]?key|psk)[\w.-]*"
)
"""Words for a secret in any syntax; what stands before them belongs to the word, too."""

_HINTS = (
    *("passw", "passphrase", "passcode", "secret", "token", "credential", "key", "psk", "md5", "tcp-ao"),
    *("authentication", "authorization", "community", "com2sec", "sink", "user", "bearer", "basic", "://"),
)
"""One of these is in every line that a pattern finds, in small letters."""

_BETWEEN = r"(?P<between>[\"']?\s*[:=]\s*|\s+)"
_QUOTED = r"\"(?:[^\"\\\r\n]|\\.)*\"|'(?:[^'\\\r\n]|\\.)*'"
_CONFIGURED = re.compile(
    rf"(?:(?P<snmp>\b(?:{'|'.join(_SNMP)}))|\b(?:{'|'.join(_ROUTING)}|md5-[\w-]+|tcp-ao)|{_WORDS})"
    rf"{_BETWEEN}(?P<secret>\S[^\r\n]*)",
    re.IGNORECASE,
)
_ANYWHERE = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # A command, as a shell logs it.
        r"\b(?:neighbor|peer)\s+\S+\s+password\s+(?P<secret>\S[^\r\n]*)",
        rf"\b(?:{'|'.join(_ROUTING)})\s+(?P<secret>\S[^\r\n]*)",
        rf"\b(?:snmp-server\s+community|r[ow]community6?)\s+(?P<secret>{_QUOTED}|[^\s;]+)",
        rf"{_WORDS}[\"']?\s*[:=]\s*(?P<secret>{_QUOTED}|[^\s;,}}&]+)",
        r"\bauthorization[\"']?\s*[:=]\s*(?P<secret>\S[^\r\n]*)",
        r"\b(?:bearer|basic)\s+(?P<secret>(?=\S*\d)[a-z0-9._~+/=-]{8,})",
        r"://[^\s/@:\"']*:(?P<secret>[^\s/@\"']+)@",
        r"://(?P<secret>[^\s/@:\"']{16,})@",
    )
)
_BLOCKS = (
    re.compile(
        r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----(?P<secret>.*?)(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)",
        re.DOTALL,
    ),
    re.compile(r"\$ANSIBLE_VAULT;[^\r\n]*\r?\n(?P<secret>(?:[ \t]*[0-9a-f]{6,}[ \t]*(?:\r?\n|\Z))+)"),
)
_KIND = re.compile(
    r"(?:\d|clear|cleartext|plain|plaintext|encrypted|md5|sha\w*|hmac[\w-]*|bearer|basic)\s+(?=\S)",
    re.IGNORECASE,
)
"""What some commands say of the secret that follows: ``password 8 HASH``, ``isis password md5 WORD``."""
_COMMENT = re.compile(r"\s*(?:[#!;]|//)")
_ALGORITHMS = frozenset(
    (
        *("md5", "sha", "sha-1", "sha-224", "sha-256", "sha-384", "sha-512"),
        *("des", "aes", "aes-128", "aes-192", "aes-256", "-e", "-v"),
    )
)


def text_of(content: bytes) -> str:
    """Return bytes as text that can be turned back into the same bytes."""
    return content.decode(errors="surrogateescape")


def bytes_of(text: str) -> bytes:
    """Return the bytes of a text from `text_of`."""
    return text.encode(errors="surrogateescape")


def secrets_in(configuration: str) -> set[str]:
    """Return what is secret in a configuration, as it is written there and without quotes and punctuation.

    Args:
        configuration: of FRR, ExaBGP, BIRD, SNMP, systemd, YAML, or anything with a word for a secret.
    """
    found: set[str] = set()
    for line in configuration.split("\n"):
        if _hinted(line):
            said = set(_in_line(line))
            found |= {word for word in said if _looks_secret(word)} if _COMMENT.match(line) else said
    for pattern in _BLOCKS:
        for match in pattern.finditer(configuration):
            found |= {line.strip() for line in match["secret"].splitlines()}
    return {secret for secret in found if not _is_ordinary(secret)}


def _hinted(line: str) -> bool:
    lowered = line.lower()
    return any(hint in lowered for hint in _HINTS)


def _in_line(line: str) -> Iterator[str]:
    for match in _CONFIGURED.finditer(line):
        yield from _communities(match["secret"]) if match["snmp"] else _readings(match["secret"])
        # Where no colon follows the word, one may begin the secret.
        yield (match["between"] + match["secret"]).strip()
    for pattern in _ANYWHERE:
        for match in pattern.finditer(line):
            yield from _readings(match["secret"])


def _looks_secret(word: str) -> bool:
    """Tell a secret in a comment from what is said of one."""
    return len(word) >= 6 and not re.search(r"\s", word) and not word.isalpha()


def _is_ordinary(text: str) -> bool:
    """Tell whether this is a setting, punctuation, or what stands for a secret already."""
    if not text or text.lower() in ORDINARY or text.lstrip(_OPENING).rstrip(_CLOSING) in _BARE_MARKS:
        return True
    return len(text) < _SHORT and not any(character.isalnum() for character in text)


def _readings(rest: str) -> Iterator[str]:
    """Yield what may be meant by the rest of a line: all of it, what is quoted, what its kind leaves."""
    rest = rest.strip()
    yield rest
    yield rest.rstrip(_CLOSING)
    yield rest.partition(";")[0].strip()
    for quoted in re.findall(_QUOTED, rest):
        yield quoted[1:-1]
        yield re.sub(r"\\(.)", r"\1", quoted[1:-1])
    while kind := _KIND.match(rest):
        rest = rest[kind.end() :]
        yield rest


def _communities(rest: str) -> Iterator[str]:
    """Yield the words of a line of snmpd.conf that may be secret; names of users are among them."""
    yield from _readings(rest)
    for word in rest.split():
        bare = word.strip("\"'")
        if bare.lower() not in _ALGORITHMS and not _is_address(bare):
            yield bare


def _is_address(word: str) -> bool:
    try:
        ip_network(word, strict=False)
    except ValueError:
        return False
    return not word.isdecimal()


class Secrets:
    """The secrets of one host.

    Args:
        known: what they are; see `secrets_in`.

    Attributes:
        mark: what stands for each of them afterwards.
    """

    def __init__(self, known: Iterable[str]) -> None:
        written = {form for secret in known for form in _forms(secret) if form}
        self.mark = next((mark for mark in MARKS if not any(form in mark for form in written)), "")
        self._forms = sorted(written, key=lambda form: (-len(form), form))

    def redact(self, text: str, *, configuration: bool = False) -> str:
        """Return a text without secrets.

        Args:
            text: anything; see `text_of`.
            configuration: whether lines with a word for a secret lose the rest of the line.
        """
        if "-----BEGIN" in text or "$ANSIBLE_VAULT" in text:
            for pattern in _BLOCKS:
                text = pattern.sub(self._replace, text)
        patterns = (_CONFIGURED, *_ANYWHERE) if configuration else _ANYWHERE
        lines = text.split("\n")
        for number, line in enumerate(lines):
            if _hinted(line):
                for pattern in patterns:
                    line = pattern.sub(self._replace, line)
                lines[number] = line
        return self._without_known("\n".join(lines))

    def found_in(self, text: str) -> bool:
        """Tell whether a text has a secret in it."""
        return any(_has(text, form) for form in self._forms)

    def _without_known(self, text: str) -> str:
        # What a removed one leaves side by side may be another.
        for _ in range(_ROUNDS):
            present = [form for form in self._forms if _has(text, form)]
            if not present:
                break
            for form in present:
                if len(form) < _SHORT:
                    text = _alone(form).sub(lambda _: self.mark, text)
                else:
                    text = text.replace(form, self.mark)
        return text

    def _replace(self, match: re.Match[str]) -> str:
        whole, start = match[0], match.start()
        first, last = match.span("secret")
        return whole[: first - start] + self.mark + whole[last - start :]


def _has(text: str, form: str) -> bool:
    return form in text and (len(form) >= _SHORT or _alone(form).search(text) is not None)


def _alone(form: str) -> re.Pattern[str]:
    """Return the pattern of a text that is no part of a longer word, number, address or path."""
    return re.compile(rf"(?<![\w:/-])(?<!\w\.){re.escape(form)}(?![\w:/-]|\.\w)")


def _forms(secret: str) -> Iterator[str]:
    """Yield a secret as programs write it."""
    quoted = json.dumps(secret)[1:-1]
    yield from (secret, quoted, quoted.replace("/", "\\/"))
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield repr(secret)[1:-1]
    yield html.escape(secret)
    yield secret.replace("'", "''")
    yield secret.replace("'", "'\"'\"'")
    if len(secret) >= _SHORT:
        raw = bytes_of(secret)
        yield from (quote(raw, safe=""), quote_plus(raw), base64.b64encode(raw).decode().rstrip("="))
