"""Reading the command line, the environment and the YAML file, and who beats whom."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvstore.serving.settings import Settings, UsageError, read_settings
from kvstore.serving.values import BadValueError, format_duration, parse_bool, parse_duration


def refusal(argv: list[str], environ: dict[str, str] | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        read_settings(argv, environ or {})
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5.0),
        ("1h30m", 5400.0),
        ("100ms", 0.1),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("2us", 2e-6),
        ("2µs", 2e-6),
        ("7ns", 7e-9),
        ("0", 0.0),
        ("-2m", -120.0),
    ],
)
def test_durations_are_read_as_go_reads_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "1h30", "5d", "--5s", "1e3s", "."])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(BadValueError):
        parse_duration(text)


def test_durations_are_written_shortly() -> None:
    written = [format_duration(s) for s in (0.1, 5, 600, 7200, 0, 90)]
    assert written == ["100ms", "5s", "10m", "2h", "0s", "90s"]


def test_truth_has_goes_spellings_only() -> None:
    assert parse_bool("T") is True
    assert parse_bool("0") is False
    with pytest.raises(BadValueError):
        parse_bool("yes")


@pytest.mark.parametrize(
    "argv",
    [
        ["--name=a", "--heartbeat-interval", "50", "--pre-vote=false"],
        ["-name", "a", "-heartbeat-interval=50", "-pre-vote=F"],
    ],
)
def test_flags_in_every_spelling(argv: list[str]) -> None:
    settings = read_settings(argv, {})
    assert settings.text("name") == "a"
    assert settings.int("heartbeat-interval") == 50
    assert settings.flag("pre-vote") is False
    assert settings.given == {
        "name": "--name",
        "heartbeat-interval": "--heartbeat-interval",
        "pre-vote": "--pre-vote",
    }


def test_a_bare_boolean_flag_is_true_and_takes_no_word_after_it() -> None:
    assert read_settings(["--unsafe-no-fsync", "--name=x"], {}).flag("unsafe-no-fsync") is True
    assert "--pre-vote=false" in refusal(["--pre-vote", "false"])


def test_the_last_of_two_counts() -> None:
    assert read_settings(["--name=a", "--name=b"], {}).text("name") == "b"


def test_an_older_spelling_is_the_same_flag() -> None:
    settings = read_settings(["--experimental-watch-progress-notify-interval=3s"], {})
    assert settings.seconds("watch-progress-notify-interval") == 3.0
    assert settings.origin("watch-progress-notify-interval") == (
        "--experimental-watch-progress-notify-interval"
    )


def test_an_unknown_flag_is_refused_with_a_suggestion() -> None:
    assert "did you mean --election-timeout?" in refusal(["--electon-timeout=5"])
    assert "kvstore serve --help" in refusal(["--zzzzzz"])


def test_a_flag_without_its_value_and_a_wrong_value_are_refused() -> None:
    assert refusal(["--name"]) == "--name needs a value (text)"
    assert refusal(["--heartbeat-interval=ten"]).startswith("--heartbeat-interval: 'ten'")
    assert refusal([], {"KVSTORE_PRE_VOTE": "yes"}).startswith("KVSTORE_PRE_VOTE: ")
    assert "one word too many" in refusal(["infra0"])


def test_a_flag_beats_its_variable_and_an_empty_variable_is_none() -> None:
    environ = {"KVSTORE_NAME": "env", "KVSTORE_DATA_DIR": "/env", "KVSTORE_WAL_DIR": ""}
    settings = read_settings(["--name=flag"], environ)
    assert settings.text("name") == "flag"
    assert settings.text("data-dir") == "/env"
    assert settings.origin("data-dir") == "KVSTORE_DATA_DIR"
    assert "wal-dir" not in settings.given


def test_etcds_own_variables_are_not_read() -> None:
    assert read_settings([], {"ETCD_NAME": "other"}).text("name") == "default"


def test_a_mistyped_variable_is_pointed_out_and_others_are_left_alone() -> None:
    settings = read_settings([], {"KVSTORE_ELECTON_TIMEOUT": "5", "KVSTORE_REQUIRE_ALL": "1"})
    assert settings.notes == (
        "KVSTORE_ELECTON_TIMEOUT is not a setting of serve; did you mean KVSTORE_ELECTION_TIMEOUT?",
    )


def from_file(tmp_path: Path, text: str, argv: list[str] | None = None) -> Settings:
    path = tmp_path / "node.yaml"
    path.write_text(text)
    return read_settings([f"--config-file={path}", *(argv or [])], {})


def test_the_file_beats_flags_and_says_so(tmp_path: Path) -> None:
    settings = from_file(tmp_path, "name: file\n", ["--name=flag", "--data-dir=/flag"])
    assert settings.text("name") == "file"
    assert settings.text("data-dir") == "/flag"
    assert settings.notes == (f"{tmp_path}/node.yaml: name overrides --name",)


def test_the_file_has_etcds_forms(tmp_path: Path) -> None:
    settings = from_file(
        tmp_path,
        """
name: 'infra0'
data-dir:
heartbeat-interval: 50
listen-client-urls: http://127.0.0.1:1,http://127.0.0.1:2
log-outputs: [stdout, /tmp/x.log]
strict-reconfig-check: false
grpc-keepalive-min-time: 3000000000
watch-progress-notify-interval: 20s
auto-compaction-retention: "1"
proxy: off
max-wals: 5
feature-gates: {CompactHashCheck: true}
client-transport-security:
  cert-file:
  client-cert-auth: false
peer-transport-security:
""",
    )
    assert settings.text("name") == "infra0"
    assert settings.text("data-dir") == "${name}.etcd"
    assert settings.list("listen-client-urls") == ("http://127.0.0.1:1", "http://127.0.0.1:2")
    assert settings.list("log-outputs") == ("stdout", "/tmp/x.log")
    assert settings.flag("strict-reconfig-check") is False
    assert settings.seconds("grpc-keepalive-min-time") == 3.0
    assert settings.seconds("watch-progress-notify-interval") == 20.0
    assert settings.text("auto-compaction-retention") == "1"
    assert settings.list("feature-gates") == ("CompactHashCheck=true",)
    assert settings.notes == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nmae: x", "no setting 'nmae'; did you mean name?"),
        ("peer-transport-security: {cert-file: a.pem}", "cert-file is refused: "),
        ("client-transport-security: {client-cert-auth: true}", "TLS"),
        ("client-transport-security: {cert: x}", "no setting 'client-transport-security.cert'"),
        ("client-transport-security: 5", "must be a map"),
        ("- a\n- b", "must be a map of settings"),
        ("name: [a, b", "is not YAML"),
        ("name: {a: b}", "must be a single value"),
        ("config-file: x", "only be given on the command line"),
        ("heartbeat-interval: soon", "'soon' is not a whole number"),
        ("name: !!python/object/apply:os.system [true]", "is not YAML"),
    ],
)
def test_a_wrong_file_is_refused_with_a_sentence(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        from_file(tmp_path, text)
    assert said in str(caught.value)


def test_a_file_that_is_not_there_or_too_large(tmp_path: Path) -> None:
    assert "No such file" in refusal(["--config-file=/nonexistent/x.yaml"])
    with pytest.raises(UsageError, match="too large"):
        from_file(tmp_path, "#" * (1024 * 1024 + 1))


def test_an_empty_file_sets_nothing(tmp_path: Path) -> None:
    assert set(from_file(tmp_path, "").given) == {"config-file"}
