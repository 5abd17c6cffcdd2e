"""Secrets do not leave a router: where they stand, and wherever else they are written."""

from __future__ import annotations

import base64
import json
import string
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from router_agent.support.redact import MARKS, ORDINARY, Secrets, bytes_of, secrets_in, text_of

WORD = st.text(string.ascii_letters + string.digits + "!$%&()*+,-./:<=>?@^_{|}~", min_size=4, max_size=60)
LINE = st.text(string.ascii_letters + string.digits + string.punctuation + " ", min_size=4, max_size=80).map(
    str.strip
)
QUOTABLE = st.text(
    string.ascii_letters + string.digits + "!$%&()*+,-./:;<=>?@^_{|}~# ", min_size=4, max_size=60
).map(str.strip)
TOKEN = st.text(string.ascii_letters + string.digits + "-_~+/", min_size=8, max_size=60)

Written = Callable[[str], str]
FORMS: dict[str, tuple[st.SearchStrategy[str], Written]] = {
    "FRR's neighbour": (
        LINE,
        lambda s: f"router bgp 64500\n neighbor 192.0.2.1 password {s}\n neighbor 192.0.2.1 remote-as 1\n",
    ),
    "FRR's vty": (WORD, lambda s: f"hostname r1\npassword {s}\n"),
    "FRR's enable, hashed": (WORD, lambda s: f"enable password 8 {s}\n"),
    "OSPF's key": (WORD, lambda s: f"interface eth0\n ip ospf message-digest-key 1 md5 {s}\n"),
    "OSPF's simple key": (WORD, lambda s: f" ip ospf authentication-key {s}\n"),
    "OSPFv3's key": (WORD, lambda s: f" ipv6 ospf6 authentication key-id 1 hash-algo hmac-sha-256 key {s}\n"),
    "IS-IS": (WORD, lambda s: f"router isis 1\n area-password md5 {s}\n"),
    "key chain": (LINE, lambda s: f"key chain A\n key 1\n  key-string {s}\n"),
    "ExaBGP's md5": (QUOTABLE, lambda s: f'neighbor 192.0.2.1 {{\n    md5-password "{s}";\n}}\n'),
    "ExaBGP's md5, bare": (TOKEN, lambda s: f"neighbor 192.0.2.1 {{ md5-password {s}; }}\n"),
    "BIRD's password": (
        QUOTABLE,
        lambda s: f'protocol bgp a {{\n  password "{s}";\n  neighbor 192.0.2.1 as 1;\n}}\n',
    ),
    "BIRD's TCP-AO": (
        QUOTABLE,
        lambda s: f'  keys {{ key {{ id 0; secret "{s}"; algorithm hmac sha1; }}; }}\n',
    ),
    "SNMP's community": (TOKEN, lambda s: f"rocommunity {s} 192.0.2.0/24\n"),
    "SNMP's security name": (TOKEN, lambda s: f"com2sec readers 192.0.2.0/24 {s}\n"),
    "SNMP's user": (TOKEN, lambda s: f'createUser reader SHA "{s}" AES\n'),
    "an environment": (WORD, lambda s: f"Environment=API_KEY={s}\n"),
    "YAML": (QUOTABLE, lambda s: f'peers:\n  - name: a\n    password: "{s}"\n'),
    "YAML's API key": (TOKEN, lambda s: f"api_key: {s}\n"),
    "JSON": (QUOTABLE, lambda s: json.dumps({"name": "a", "client_secret": s, "port": 1}) + "\n"),
    "WireGuard": (TOKEN, lambda s: f"[WireGuard]\nPrivateKey={s}\nPresharedKey={s}\n"),
    "a URL": (TOKEN.filter(lambda s: "/" not in s), lambda s: f"proxy http://reader:{s}@192.0.2.1:3128/\n"),
    "a header": (TOKEN, lambda s: f"Authorization: Bearer {s}\n"),
}
ELSEWHERE: dict[str, Written] = {
    "as it is": lambda s: f"Nov 22 00:00:01 r1 vtysh[12]: neighbor 192.0.2.1 password {s}\n",
    "in other words": lambda s: f"found {s}, expected something else\n",
    "in JSON": lambda s: json.dumps({"MESSAGE": f"said {s}"}) + "\n",
    "in a URL": lambda s: f"GET /login?next=x&p={quote(s, safe='')} HTTP/1.1\n",
    "in base64": lambda s: base64.b64encode(s.encode()).decode() + "\n",
    "quoted": lambda s: f"argument {s!r}\n",
}


@pytest.mark.parametrize("form", FORMS)
@given(data=st.data())
def test_no_secret_survives(form: str, data: st.DataObject) -> None:
    strategy, written = FORMS[form]
    secret = data.draw(strategy)
    # Shorter ones are words of their own, and settings such as "none" no secrets: see below.
    assume(len(secret) >= 4 and secret.lower() not in ORDINARY and secret not in MARKS)
    configuration = written(secret)
    secrets = Secrets(secrets_in(configuration))
    cleaned = secrets.redact(configuration, configuration=True)
    assert secret not in cleaned.replace(secrets.mark, "")
    assert not secrets.found_in(cleaned)
    assert not secrets_in(cleaned)
    for words, elsewhere in ELSEWHERE.items():
        text = elsewhere(secret)
        cleaned = secrets.redact(text)
        assert not secrets.found_in(cleaned), words
        assert secret not in cleaned, words


@given(secret=st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=3))
@example("a")
@example("8")
def test_a_short_secret_is_removed_as_a_word(secret: str) -> None:
    assume(secret not in ORDINARY)
    configuration = f" neighbor 192.0.2.1 password {secret}\n"
    secrets = Secrets(secrets_in(configuration))
    assert (
        secrets.redact(configuration, configuration=True) == f" neighbor 192.0.2.1 password {secrets.mark}\n"
    )
    cleaned = secrets.redact(f"set {secret}, again\n")
    assert secret not in cleaned.replace(secrets.mark, "").replace("again", "").replace("set", "")


@given(st.text())
def test_a_text_without_secrets_stays_as_it_is(text: str) -> None:
    lowered = text.lower()
    assume(
        not any(
            word in lowered for word in ("passw", "secret", "token", "key", "basic", "bearer", "://", "psk")
        )
    )
    assert Secrets(()).redact(text) == text


@given(st.binary(max_size=300), st.sets(st.text(min_size=1, max_size=6), max_size=4))
def test_any_bytes_and_secrets_end_without_one(content: bytes, known: set[str]) -> None:
    secrets = Secrets(known)
    assert not secrets.found_in(secrets.redact(text_of(content), configuration=True))
    assert bytes_of(text_of(content)) == content


def test_what_is_no_secret_stays() -> None:
    configuration = """\
frr defaults traditional
hostname r1
service password-encryption
router bgp 64500
 neighbor 192.0.2.1 remote-as 64501
 neighbor 192.0.2.1 description transit
 address-family ipv4 unicast
  neighbor 192.0.2.1 send-community
  set community 64500:666 additive
bgp community-list standard GSHUT seq 5 permit graceful-shutdown
"""
    secrets = Secrets(secrets_in(configuration))
    assert secrets.redact(configuration, configuration=True) == configuration


def test_private_keys_and_vaults_go_whole() -> None:
    begin, end = (f"-----{word} OPENSSH PRIVATE KEY-----\n" for word in ("BEGIN", "END"))
    key = f"{begin}b3BlbnNzaC1rZXktdjEAAAAABG5vbmU\nAAAA2Vk\n{end}"
    vault = "password: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  6231326665\n  3336653435\nnext: 1\n"
    secrets = Secrets(secrets_in(key + vault))
    cleaned = secrets.redact(key + vault)
    assert "b3Blbn" not in cleaned
    assert "6231326665" not in cleaned
    assert "next: 1" in cleaned
    assert secrets.redact("log: b3BlbnNzaC1rZXktdjEAAAAABG5vbmU\n") == f"log: {secrets.mark}\n"


def test_the_mark_has_no_secret_in_it() -> None:
    secrets = Secrets({"removed", "***"})
    assert secrets.mark == "{---}"
    cleaned = secrets.redact("removed *** removed")
    assert not secrets.found_in(cleaned)


def test_a_log_of_a_busy_day_is_gone_through_in_a_reasonable_number_of_steps() -> None:
    """A long run of letters must not cost its square: 1 MiB of them ends before the test's time is over."""
    Secrets({"hunter22"}).redact("a" * (1 << 20) + " password=" + "b" * (1 << 20))
