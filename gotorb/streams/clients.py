"""Kafka clients: settings from .env, offsets at the brokers, errors that end a stream, and the publisher of scores."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from gotorb.core.settings import Settings
from gotorb.errors import ConfigError, GotorbError, Refused
from gotorb.streams.journal import Journal, Place

log = logging.getLogger(__name__)
client_log = logging.getLogger("gotorb.streams.kafka")
SECURITY = ("plaintext", "ssl", "sasl_plaintext", "sasl_ssl")
ASK_S = 5.0
"""Longest wait for an answer of a broker [s]."""
FETCH_BYTES = 16_000_000
"""Largest message that is fetched without asking again [byte]."""
QUEUE_KB = 32_768
"""Messages that a worker fetches ahead [kB]."""
POLL_MS = 300_000
"""Longest time between two polls before the group takes a worker's partitions [ms]."""
STATISTICS_MS = 2_000
TELL_S = 10.0
"""Time between two messages on the same trouble [s]."""
REFUSALS = ("_AUTHENTICATION", "SASL_AUTHENTICATION_FAILED", "TOPIC_AUTHORIZATION_FAILED",
            "GROUP_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED", "_SSL")  # fmt: skip
"""Errors for which waiting does not help."""
AWAY = ("_ALL_BROKERS_DOWN", "_TRANSPORT", "_RESOLVE", "_TIMED_OUT")
AT_A_TIME = 500
"""Scores on their way to the broker."""
FLUSH_S, DRAIN_S = 0.2, 30.0
"""Longest wait for deliveries at a time, and for the rest at the end [s]."""
PATTERN = "^"
"""Beginning of a topic that is a regular expression."""
Parts = Iterable[tuple[str, int]]


def kafka() -> ModuleType:
    """Kafka client, imported when it is needed.

    Raises
    ------
    ConfigError
        If it is not installed.
    """
    try:
        import confluent_kafka
    except ImportError:
        raise ConfigError("alert streams need confluent-kafka; install it with `pip install gotorb[stream]`") from None
    return confluent_kafka


class Health:
    """Connection of a client, as its callbacks report it.

    Attributes
    ----------
    connected : bool
        False after all brokers were lost, until one is up again.
    refusal : str
        Reason for which the brokers refuse the client; "" for none.
    lag : dict
        Messages behind, by topic and partition.
    """

    def __init__(self) -> None:
        self.connected, self.refusal = False, ""
        self.lag: dict[tuple[str, int], int] = {}
        self._told, self._ever = -TELL_S, False

    def on_error(self, error: Any) -> None:
        """Take an error of the client.

        Parameters
        ----------
        error : KafkaError
        """
        if error.name() in REFUSALS and not (error.name() == "_SSL" and self._ever):
            self.refusal = self.refusal or f"{error.name()}: {error.str()}"
        elif error.name() in (*AWAY, "_SSL"):
            self.connected = self.connected and error.name() != "_ALL_BROKERS_DOWN"
            self._tell("brokers away (%s); waiting for them", error.str())
        else:
            self._tell("%s; trying again", error.str())

    def _tell(self, text: str, reason: str) -> None:
        """Log a lasting trouble at most every `TELL_S` seconds."""
        if time.monotonic() - self._told > TELL_S:
            self._told = time.monotonic()
            log.warning(text, reason)

    def on_statistics(self, text: str) -> None:
        """Take the client's statistics: brokers that are up, and the lag.

        Parameters
        ----------
        text : str
            JSON.
        """
        found = json.loads(text)
        self.connected = any(one["state"] == "UP" for one in found["brokers"].values() if one["nodeid"] >= 0)
        self._ever |= self.connected
        self.lag = {
            (topic, int(part)): max(0, one["hi_offset"] - one["app_offset"])
            for topic, about in found["topics"].items()
            for part, one in about["partitions"].items()
            if int(part) >= 0 and one["hi_offset"] >= 0 and one["app_offset"] >= 0
        }

    def check(self) -> None:
        """Raise Refused when waiting does not help."""
        if self.refusal:
            raise Refused(
                f"the brokers refuse the connection ({self.refusal}); check GOTORB_KAFKA_USERNAME, _PASSWORD, "
                "_SECURITY, _SASL_MECHANISM and _CA in .env, and the account's rights to topic and group"
            )


def client_settings(settings: Settings, **more: Any) -> dict[str, Any]:
    """Settings of a client from .env; they hold the password, so they are never logged.

    Parameters
    ----------
    settings : Settings
    **more
        Settings with ``_`` for ``.``, which GOTORB_KAFKA_EXTRA may replace.

    Returns
    -------
    dict

    Raises
    ------
    ConfigError
        If the brokers are missing, or a value is wrong.
    """
    if not settings.gotorb_kafka_servers:
        raise ConfigError("no brokers; set GOTORB_KAFKA_SERVERS=host:port,... in .env")
    security = (settings.gotorb_kafka_security or "plaintext").lower()
    if security not in SECURITY:
        raise ConfigError(f"GOTORB_KAFKA_SECURITY is {security!r} in .env; give one of {', '.join(SECURITY)}")
    found: dict[str, Any] = {"bootstrap.servers": settings.gotorb_kafka_servers, "security.protocol": security}
    if security.startswith("sasl"):
        found |= {
            "sasl.mechanism": settings.gotorb_kafka_sasl_mechanism or "SCRAM-SHA-512",
            "sasl.username": settings.gotorb_kafka_username, "sasl.password": settings.gotorb_kafka_password,
        }  # fmt: skip
    if settings.gotorb_kafka_ca:
        found["ssl.ca.location"] = settings.gotorb_kafka_ca
    return found | {name.replace("_", "."): value for name, value in more.items()} | _extra(settings)


def _extra(settings: Settings) -> dict[str, str]:
    """Settings of GOTORB_KAFKA_EXTRA; the message of an error does not show them."""
    pairs = [one.partition("=") for one in settings.gotorb_kafka_extra.split(",") if one.strip()]
    if any(not (name.strip() and sign) for name, sign, _ in pairs):
        raise ConfigError("GOTORB_KAFKA_EXTRA in .env is not name=value,name=value; correct it")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _make(kind: str, config: Mapping[str, Any]) -> Any:
    """Make a client; the error about a wrong setting does not quote its value, which may be secret."""
    library = kafka()
    try:
        return getattr(library, kind)(dict(config), logger=client_log)
    except library.KafkaException as error:
        reason = str(error.args[0].str())
        for name in ("sasl.password", "ssl.key.password", "sasl.username"):
            if config.get(name):
                reason = reason.replace(str(config[name]), "***")
        raise ConfigError(f"the Kafka client refuses its settings ({reason}); correct GOTORB_KAFKA_* in .env") from None


def make_consumer(settings: Settings, group: str, health: Health, *, instance: str = "") -> Any:
    """Make a consumer that commits nothing by itself and gives partitions back one by one.

    Parameters
    ----------
    settings : Settings
    group : str
    health : Health
        Told of errors and statistics.
    instance : str
        Name of a member that keeps its partitions through a restart; "" for none.

    Returns
    -------
    confluent_kafka.Consumer
    """
    base = client_settings(
        settings, group_id=group, enable_auto_commit=False, enable_auto_offset_store=False, auto_offset_reset="error",
        partition_assignment_strategy="cooperative-sticky", enable_partition_eof=True, max_poll_interval_ms=POLL_MS,
        queued_max_messages_kbytes=QUEUE_KB, fetch_message_max_bytes=FETCH_BYTES, fetch_wait_max_ms=100,
        statistics_interval_ms=STATISTICS_MS, socket_keepalive_enable=True,
    )  # fmt: skip
    own = {"group.instance.id": instance} if instance else {}
    return _make("Consumer", own | base | {"error_cb": health.on_error, "stats_cb": health.on_statistics})


def make_producer(settings: Settings, health: Health) -> Any:
    """Make a producer that writes each message once as long as it lives.

    Parameters
    ----------
    settings : Settings
    health : Health

    Returns
    -------
    confluent_kafka.Producer
    """
    base = client_settings(settings, enable_idempotence=True, linger_ms=5, compression_type="lz4")
    return _make("Producer", base | {"error_cb": health.on_error})


def retry(ask: Callable[[], Any], health: Health, stop: threading.Event, *, what: str) -> Any:
    """Ask the brokers until they answer.

    Parameters
    ----------
    ask : callable
        One question; raises KafkaException where there is no answer.
    health : Health
        Raises when they refuse.
    stop : threading.Event
        Ends the waiting.
    what : str
        For the log.

    Returns
    -------
    object
        The answer; None when the waiting was ended.

    Raises
    ------
    Refused
        If waiting does not help.
    """
    failure = kafka().KafkaException
    while not stop.is_set():
        try:
            answer = ask()
        except failure as error:
            health.on_error(error.args[0])
            health.check()
            log.info("no answer to %s (%s); asking again", what, error.args[0].str())
            stop.wait(0.5)
        else:
            health.connected = True
            return answer
    return None


def list_partitions(client: Any, topics: Iterable[str]) -> tuple[str, list[tuple[str, int]]]:
    """Cluster and partitions of topics.

    Parameters
    ----------
    client : Consumer or Producer
    topics : iterable of str

    Returns
    -------
    cluster : str
        Its id; "" where the brokers have none.
    partitions : list of tuple
        Topic and partition; none of a topic that does not exist.
    """
    found: list[tuple[str, int]] = []
    cluster = ""
    for topic in topics:
        pattern = topic.startswith(PATTERN)
        about = client.list_topics(timeout=ASK_S) if pattern else client.list_topics(topic, timeout=ASK_S)
        cluster = about.cluster_id or ""
        names = [name for name in about.topics if re.match(topic, name)] if pattern else [topic]
        found += [
            (name, part) for name in names if name in about.topics for part in sorted(about.topics[name].partitions)
        ]
    return cluster, found


def find_ends(consumer: Any, partitions: Parts) -> dict[tuple[str, int], tuple[int, int]]:
    """First and next offset of partitions at the broker.

    Parameters
    ----------
    consumer : Consumer
    partitions : iterable of tuple

    Returns
    -------
    dict
    """
    point = kafka().TopicPartition
    return {one: consumer.get_watermark_offsets(point(*one), timeout=ASK_S) for one in partitions}


def find_committed(consumer: Any, partitions: Parts) -> dict[tuple[str, int], int]:
    """Offsets that the group has committed; a partition without one is left out.

    Parameters
    ----------
    consumer : Consumer
    partitions : iterable of tuple

    Returns
    -------
    dict
    """
    point = kafka().TopicPartition
    found = consumer.committed([point(*one) for one in partitions], timeout=ASK_S)
    return {(one.topic, one.partition): one.offset for one in found if one.offset >= 0}


def find_times(consumer: Any, partitions: Parts, seconds: float) -> dict[tuple[str, int], int]:
    """First offset at or after a time; a partition without one is left out.

    Parameters
    ----------
    consumer : Consumer
    partitions : iterable of tuple
    seconds : float
        Since 1970.

    Returns
    -------
    dict
    """
    point = kafka().TopicPartition
    wanted = [point(*one, int(seconds * 1000)) for one in partitions]
    found = consumer.offsets_for_times(wanted, timeout=ASK_S)
    return {(one.topic, one.partition): one.offset for one in found if one.offset >= 0}


def read_time(text: str, option: str) -> float:
    """Seconds since 1970 of a time in UTC.

    Parameters
    ----------
    text : str
        ISO 8601.
    option : str
        For the message of an error.

    Returns
    -------
    float

    Raises
    ------
    ConfigError
        If it is no time.

    Examples
    --------
    >>> read_time("1970-01-02", "--from"), read_time("1970-01-01T00:01Z", "--from")
    (86400.0, 60.0)
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"{option} is {text!r}; give a word of the help, or a time such as 2026-03-27T04:00"
        ) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def place_of(message: Any) -> Place:
    """Place of a client's message.

    Parameters
    ----------
    message : confluent_kafka.Message

    Returns
    -------
    Place
    """
    return Place(message.topic(), message.partition(), message.offset())


class Publisher(threading.Thread):
    """A thread that empties the outbox; only one runs for a folder.

    A row is marked after the broker has answered, so that a kill in between sends it again with the same key and the
    same bytes.

    Parameters
    ----------
    folder : Path
        Of the journal.
    settings : Settings
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        super().__init__(daemon=True, name="publisher")
        self.health, self.error = Health(), ""
        self.producer = make_producer(settings, self.health)
        self.folder, self.ending = folder, threading.Event()
        self.n_published = 0
        self._on_the_way: set[int] = set()
        self._arrived: list[int] = []

    def run(self) -> None:
        """Publish until `finish` is called and the outbox is empty."""
        try:
            with closing(Journal(self.folder)) as journal:
                while self._publish(journal) or not self.ending.is_set():
                    self.ending.wait(0 if self._on_the_way else FLUSH_S)
        except GotorbError as error:
            self.error = str(error)
            log.error("publishing stopped: %s", error)

    def finish(self) -> None:
        """Wait until the outbox is empty, for a while: what is left is published by the next start."""
        self.ending.set()
        self.join(DRAIN_S)

    def _publish(self, journal: Journal) -> bool:
        """Send what is new, and mark what has arrived; False when there is nothing to do."""
        room = AT_A_TIME - len(self._on_the_way)
        found = journal.unpublished(AT_A_TIME) if room > 0 else []
        for number, topic, key, value in found:
            if number not in self._on_the_way and number not in self._arrived and len(self._on_the_way) < AT_A_TIME:
                self._send(number, topic, key, value)
        self.producer.poll(FLUSH_S if self._on_the_way else 0)
        if self._arrived:
            journal.mark_published(self._arrived)
            self.n_published += len(self._arrived)
            self._arrived.clear()
        return bool(found or self._on_the_way)

    def _send(self, number: int, topic: str, key: str, value: bytes) -> None:
        def on_delivery(error: Any, _: Any) -> None:
            self._on_the_way.discard(number)
            if error is None:
                self._arrived.append(number)
            else:
                log.warning("alert %s is not published yet (%s)", key, error.str())

        with suppress(BufferError, kafka().KafkaException):
            self.producer.produce(topic, value=value, key=key, on_delivery=on_delivery)
            self._on_the_way.add(number)
