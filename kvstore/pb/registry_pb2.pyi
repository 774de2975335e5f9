from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATUS_UNSPECIFIED: _ClassVar[Status]
    STARTING: _ClassVar[Status]
    UP: _ClassVar[Status]
    DEGRADED: _ClassVar[Status]
    DRAINING: _ClassVar[Status]
    OUT_OF_SERVICE: _ClassVar[Status]
    DOWN: _ClassVar[Status]
    UNKNOWN: _ClassVar[Status]
STATUS_UNSPECIFIED: Status
STARTING: Status
UP: Status
DEGRADED: Status
DRAINING: Status
OUT_OF_SERVICE: Status
DOWN: Status
UNKNOWN: Status

class Header(_message.Message):
    __slots__ = ("cluster_id", "member_id", "revision", "no_leader")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    MEMBER_ID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    NO_LEADER_FIELD_NUMBER: _ClassVar[int]
    cluster_id: int
    member_id: int
    revision: int
    no_leader: bool
    def __init__(self, cluster_id: _Optional[int] = ..., member_id: _Optional[int] = ..., revision: _Optional[int] = ..., no_leader: bool = ...) -> None: ...

class ServiceName(_message.Message):
    __slots__ = ("namespace", "service")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    service: str
    def __init__(self, namespace: _Optional[str] = ..., service: _Optional[str] = ...) -> None: ...

class InstanceName(_message.Message):
    __slots__ = ("namespace", "service", "id")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    service: str
    id: str
    def __init__(self, namespace: _Optional[str] = ..., service: _Optional[str] = ..., id: _Optional[str] = ...) -> None: ...

class Port(_message.Message):
    __slots__ = ("name", "number")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    name: str
    number: int
    def __init__(self, name: _Optional[str] = ..., number: _Optional[int] = ...) -> None: ...

class Reason(_message.Message):
    __slots__ = ("code", "text")
    CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    code: str
    text: str
    def __init__(self, code: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class Check(_message.Message):
    __slots__ = ("name", "http", "tcp", "grpc", "interval_ms", "timeout_ms", "healthy_after", "unhealthy_after")
    NAME_FIELD_NUMBER: _ClassVar[int]
    HTTP_FIELD_NUMBER: _ClassVar[int]
    TCP_FIELD_NUMBER: _ClassVar[int]
    GRPC_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    HEALTHY_AFTER_FIELD_NUMBER: _ClassVar[int]
    UNHEALTHY_AFTER_FIELD_NUMBER: _ClassVar[int]
    name: str
    http: HttpCheck
    tcp: TcpCheck
    grpc: GrpcCheck
    interval_ms: int
    timeout_ms: int
    healthy_after: int
    unhealthy_after: int
    def __init__(self, name: _Optional[str] = ..., http: _Optional[_Union[HttpCheck, _Mapping]] = ..., tcp: _Optional[_Union[TcpCheck, _Mapping]] = ..., grpc: _Optional[_Union[GrpcCheck, _Mapping]] = ..., interval_ms: _Optional[int] = ..., timeout_ms: _Optional[int] = ..., healthy_after: _Optional[int] = ..., unhealthy_after: _Optional[int] = ...) -> None: ...

class HttpCheck(_message.Message):
    __slots__ = ("url", "method", "headers", "expected_statuses")
    class HeadersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    URL_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_STATUSES_FIELD_NUMBER: _ClassVar[int]
    url: str
    method: str
    headers: _containers.ScalarMap[str, str]
    expected_statuses: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, url: _Optional[str] = ..., method: _Optional[str] = ..., headers: _Optional[_Mapping[str, str]] = ..., expected_statuses: _Optional[_Iterable[int]] = ...) -> None: ...

class TcpCheck(_message.Message):
    __slots__ = ("target",)
    TARGET_FIELD_NUMBER: _ClassVar[int]
    target: str
    def __init__(self, target: _Optional[str] = ...) -> None: ...

class GrpcCheck(_message.Message):
    __slots__ = ("target", "service")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    target: str
    service: str
    def __init__(self, target: _Optional[str] = ..., service: _Optional[str] = ...) -> None: ...

class CheckResult(_message.Message):
    __slots__ = ("name", "status", "output", "checked_at_ms")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    CHECKED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    name: str
    status: Status
    output: str
    checked_at_ms: int
    def __init__(self, name: _Optional[str] = ..., status: _Optional[_Union[Status, str]] = ..., output: _Optional[str] = ..., checked_at_ms: _Optional[int] = ...) -> None: ...

class Instance(_message.Message):
    __slots__ = ("name", "address", "ports", "zone", "region", "version", "weight", "tags", "metadata", "status", "reported", "override", "silent", "stale", "routable", "ttl_s", "grace_s", "drain_s", "registered_at_ms", "changed_at_ms", "reason", "check_results", "checks", "lease", "create_revision", "mod_revision")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REPORTED_FIELD_NUMBER: _ClassVar[int]
    OVERRIDE_FIELD_NUMBER: _ClassVar[int]
    SILENT_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    ROUTABLE_FIELD_NUMBER: _ClassVar[int]
    TTL_S_FIELD_NUMBER: _ClassVar[int]
    GRACE_S_FIELD_NUMBER: _ClassVar[int]
    DRAIN_S_FIELD_NUMBER: _ClassVar[int]
    REGISTERED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    CHANGED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CHECK_RESULTS_FIELD_NUMBER: _ClassVar[int]
    CHECKS_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    CREATE_REVISION_FIELD_NUMBER: _ClassVar[int]
    MOD_REVISION_FIELD_NUMBER: _ClassVar[int]
    name: InstanceName
    address: str
    ports: _containers.RepeatedCompositeFieldContainer[Port]
    zone: str
    region: str
    version: str
    weight: int
    tags: _containers.RepeatedScalarFieldContainer[str]
    metadata: _containers.ScalarMap[str, str]
    status: Status
    reported: Status
    override: Status
    silent: bool
    stale: bool
    routable: bool
    ttl_s: int
    grace_s: int
    drain_s: int
    registered_at_ms: int
    changed_at_ms: int
    reason: Reason
    check_results: _containers.RepeatedCompositeFieldContainer[CheckResult]
    checks: _containers.RepeatedCompositeFieldContainer[Check]
    lease: int
    create_revision: int
    mod_revision: int
    def __init__(self, name: _Optional[_Union[InstanceName, _Mapping]] = ..., address: _Optional[str] = ..., ports: _Optional[_Iterable[_Union[Port, _Mapping]]] = ..., zone: _Optional[str] = ..., region: _Optional[str] = ..., version: _Optional[str] = ..., weight: _Optional[int] = ..., tags: _Optional[_Iterable[str]] = ..., metadata: _Optional[_Mapping[str, str]] = ..., status: _Optional[_Union[Status, str]] = ..., reported: _Optional[_Union[Status, str]] = ..., override: _Optional[_Union[Status, str]] = ..., silent: bool = ..., stale: bool = ..., routable: bool = ..., ttl_s: _Optional[int] = ..., grace_s: _Optional[int] = ..., drain_s: _Optional[int] = ..., registered_at_ms: _Optional[int] = ..., changed_at_ms: _Optional[int] = ..., reason: _Optional[_Union[Reason, _Mapping]] = ..., check_results: _Optional[_Iterable[_Union[CheckResult, _Mapping]]] = ..., checks: _Optional[_Iterable[_Union[Check, _Mapping]]] = ..., lease: _Optional[int] = ..., create_revision: _Optional[int] = ..., mod_revision: _Optional[int] = ...) -> None: ...

class RegisterRequest(_message.Message):
    __slots__ = ("instance",)
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    instance: Instance
    def __init__(self, instance: _Optional[_Union[Instance, _Mapping]] = ...) -> None: ...

class RegisterResponse(_message.Message):
    __slots__ = ("header", "instance", "created")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    header: Header
    instance: Instance
    created: bool
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., instance: _Optional[_Union[Instance, _Mapping]] = ..., created: bool = ...) -> None: ...

class HeartbeatRequest(_message.Message):
    __slots__ = ("leases", "instances")
    LEASES_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    leases: _containers.RepeatedScalarFieldContainer[int]
    instances: _containers.RepeatedCompositeFieldContainer[InstanceName]
    def __init__(self, leases: _Optional[_Iterable[int]] = ..., instances: _Optional[_Iterable[_Union[InstanceName, _Mapping]]] = ...) -> None: ...

class HeartbeatResponse(_message.Message):
    __slots__ = ("header", "ttl_s")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    TTL_S_FIELD_NUMBER: _ClassVar[int]
    header: Header
    ttl_s: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., ttl_s: _Optional[_Iterable[int]] = ...) -> None: ...

class WaitForSubscribers(_message.Message):
    __slots__ = ("timeout_ms",)
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    timeout_ms: int
    def __init__(self, timeout_ms: _Optional[int] = ...) -> None: ...

class Acknowledged(_message.Message):
    __slots__ = ("complete", "acknowledged", "laggards", "silent_members", "cannot_acknowledge", "waited_ms")
    class CannotAcknowledgeEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    LAGGARDS_FIELD_NUMBER: _ClassVar[int]
    SILENT_MEMBERS_FIELD_NUMBER: _ClassVar[int]
    CANNOT_ACKNOWLEDGE_FIELD_NUMBER: _ClassVar[int]
    WAITED_MS_FIELD_NUMBER: _ClassVar[int]
    complete: bool
    acknowledged: int
    laggards: _containers.RepeatedCompositeFieldContainer[Subscriber]
    silent_members: _containers.RepeatedScalarFieldContainer[int]
    cannot_acknowledge: _containers.ScalarMap[str, int]
    waited_ms: int
    def __init__(self, complete: bool = ..., acknowledged: _Optional[int] = ..., laggards: _Optional[_Iterable[_Union[Subscriber, _Mapping]]] = ..., silent_members: _Optional[_Iterable[int]] = ..., cannot_acknowledge: _Optional[_Mapping[str, int]] = ..., waited_ms: _Optional[int] = ...) -> None: ...

class Subscriber(_message.Message):
    __slots__ = ("id", "member_id", "member_name", "acked_revision")
    ID_FIELD_NUMBER: _ClassVar[int]
    MEMBER_ID_FIELD_NUMBER: _ClassVar[int]
    MEMBER_NAME_FIELD_NUMBER: _ClassVar[int]
    ACKED_REVISION_FIELD_NUMBER: _ClassVar[int]
    id: str
    member_id: int
    member_name: str
    acked_revision: int
    def __init__(self, id: _Optional[str] = ..., member_id: _Optional[int] = ..., member_name: _Optional[str] = ..., acked_revision: _Optional[int] = ...) -> None: ...

class DeregisterRequest(_message.Message):
    __slots__ = ("name", "reason", "wait")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    name: InstanceName
    reason: str
    wait: WaitForSubscribers
    def __init__(self, name: _Optional[_Union[InstanceName, _Mapping]] = ..., reason: _Optional[str] = ..., wait: _Optional[_Union[WaitForSubscribers, _Mapping]] = ...) -> None: ...

class DeregisterResponse(_message.Message):
    __slots__ = ("header", "existed", "last", "acknowledged")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    EXISTED_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    header: Header
    existed: bool
    last: Instance
    acknowledged: Acknowledged
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., existed: bool = ..., last: _Optional[_Union[Instance, _Mapping]] = ..., acknowledged: _Optional[_Union[Acknowledged, _Mapping]] = ...) -> None: ...

class SetStatusRequest(_message.Message):
    __slots__ = ("name", "reported", "override", "release", "check", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REPORTED_FIELD_NUMBER: _ClassVar[int]
    OVERRIDE_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    CHECK_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: InstanceName
    reported: Status
    override: Status
    release: bool
    check: CheckResult
    reason: str
    def __init__(self, name: _Optional[_Union[InstanceName, _Mapping]] = ..., reported: _Optional[_Union[Status, str]] = ..., override: _Optional[_Union[Status, str]] = ..., release: bool = ..., check: _Optional[_Union[CheckResult, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class SetStatusResponse(_message.Message):
    __slots__ = ("header", "instance")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    header: Header
    instance: Instance
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., instance: _Optional[_Union[Instance, _Mapping]] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("name", "reason", "wait", "undo")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    UNDO_FIELD_NUMBER: _ClassVar[int]
    name: InstanceName
    reason: str
    wait: WaitForSubscribers
    undo: bool
    def __init__(self, name: _Optional[_Union[InstanceName, _Mapping]] = ..., reason: _Optional[str] = ..., wait: _Optional[_Union[WaitForSubscribers, _Mapping]] = ..., undo: bool = ...) -> None: ...

class DrainResponse(_message.Message):
    __slots__ = ("header", "instances", "acknowledged")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    header: Header
    instances: _containers.RepeatedCompositeFieldContainer[Instance]
    acknowledged: Acknowledged
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., instances: _Optional[_Iterable[_Union[Instance, _Mapping]]] = ..., acknowledged: _Optional[_Union[Acknowledged, _Mapping]] = ...) -> None: ...

class Selection(_message.Message):
    __slots__ = ("health", "tags", "version", "prefer_zone", "only_preferred", "unknown_is_healthy")
    class Health(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        HEALTHY: _ClassVar[Selection.Health]
        ALL: _ClassVar[Selection.Health]
        HEALTHY_OR_ELSE_ALL: _ClassVar[Selection.Health]
    HEALTHY: Selection.Health
    ALL: Selection.Health
    HEALTHY_OR_ELSE_ALL: Selection.Health
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PREFER_ZONE_FIELD_NUMBER: _ClassVar[int]
    ONLY_PREFERRED_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_IS_HEALTHY_FIELD_NUMBER: _ClassVar[int]
    health: Selection.Health
    tags: _containers.RepeatedScalarFieldContainer[str]
    version: str
    prefer_zone: str
    only_preferred: bool
    unknown_is_healthy: bool
    def __init__(self, health: _Optional[_Union[Selection.Health, str]] = ..., tags: _Optional[_Iterable[str]] = ..., version: _Optional[str] = ..., prefer_zone: _Optional[str] = ..., only_preferred: bool = ..., unknown_is_healthy: bool = ...) -> None: ...

class GetInstancesRequest(_message.Message):
    __slots__ = ("service", "selection", "linearizable")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    SELECTION_FIELD_NUMBER: _ClassVar[int]
    LINEARIZABLE_FIELD_NUMBER: _ClassVar[int]
    service: ServiceName
    selection: Selection
    linearizable: bool
    def __init__(self, service: _Optional[_Union[ServiceName, _Mapping]] = ..., selection: _Optional[_Union[Selection, _Mapping]] = ..., linearizable: bool = ...) -> None: ...

class GetInstancesResponse(_message.Message):
    __slots__ = ("header", "instances", "service_revision", "guard", "strays", "fell_back")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    SERVICE_REVISION_FIELD_NUMBER: _ClassVar[int]
    GUARD_FIELD_NUMBER: _ClassVar[int]
    STRAYS_FIELD_NUMBER: _ClassVar[int]
    FELL_BACK_FIELD_NUMBER: _ClassVar[int]
    header: Header
    instances: _containers.RepeatedCompositeFieldContainer[Instance]
    service_revision: int
    guard: Guard
    strays: _containers.RepeatedCompositeFieldContainer[Stray]
    fell_back: bool
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., instances: _Optional[_Iterable[_Union[Instance, _Mapping]]] = ..., service_revision: _Optional[int] = ..., guard: _Optional[_Union[Guard, _Mapping]] = ..., strays: _Optional[_Iterable[_Union[Stray, _Mapping]]] = ..., fell_back: bool = ...) -> None: ...

class Guard(_message.Message):
    __slots__ = ("since_ms", "until_ms", "held", "total", "state")
    SINCE_MS_FIELD_NUMBER: _ClassVar[int]
    UNTIL_MS_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    since_ms: int
    until_ms: int
    held: int
    total: int
    state: str
    def __init__(self, since_ms: _Optional[int] = ..., until_ms: _Optional[int] = ..., held: _Optional[int] = ..., total: _Optional[int] = ..., state: _Optional[str] = ...) -> None: ...

class Stray(_message.Message):
    __slots__ = ("key", "problem")
    KEY_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    key: str
    problem: str
    def __init__(self, key: _Optional[str] = ..., problem: _Optional[str] = ...) -> None: ...

class ListServicesRequest(_message.Message):
    __slots__ = ("namespace", "prefix")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    prefix: str
    def __init__(self, namespace: _Optional[str] = ..., prefix: _Optional[str] = ...) -> None: ...

class ListServicesResponse(_message.Message):
    __slots__ = ("header", "services", "strays")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    STRAYS_FIELD_NUMBER: _ClassVar[int]
    header: Header
    services: _containers.RepeatedCompositeFieldContainer[ServiceSummary]
    strays: _containers.RepeatedCompositeFieldContainer[Stray]
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., services: _Optional[_Iterable[_Union[ServiceSummary, _Mapping]]] = ..., strays: _Optional[_Iterable[_Union[Stray, _Mapping]]] = ...) -> None: ...

class ServiceSummary(_message.Message):
    __slots__ = ("name", "instances", "routable", "stale", "by_status", "tags", "versions", "service_revision", "guard")
    class ByStatusEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    ROUTABLE_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    BY_STATUS_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    SERVICE_REVISION_FIELD_NUMBER: _ClassVar[int]
    GUARD_FIELD_NUMBER: _ClassVar[int]
    name: ServiceName
    instances: int
    routable: int
    stale: int
    by_status: _containers.ScalarMap[str, int]
    tags: _containers.RepeatedScalarFieldContainer[str]
    versions: _containers.RepeatedScalarFieldContainer[str]
    service_revision: int
    guard: Guard
    def __init__(self, name: _Optional[_Union[ServiceName, _Mapping]] = ..., instances: _Optional[int] = ..., routable: _Optional[int] = ..., stale: _Optional[int] = ..., by_status: _Optional[_Mapping[str, int]] = ..., tags: _Optional[_Iterable[str]] = ..., versions: _Optional[_Iterable[str]] = ..., service_revision: _Optional[int] = ..., guard: _Optional[_Union[Guard, _Mapping]] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("service", "selection", "after_revision", "subscriber_id")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    SELECTION_FIELD_NUMBER: _ClassVar[int]
    AFTER_REVISION_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBER_ID_FIELD_NUMBER: _ClassVar[int]
    service: ServiceName
    selection: Selection
    after_revision: int
    subscriber_id: str
    def __init__(self, service: _Optional[_Union[ServiceName, _Mapping]] = ..., selection: _Optional[_Union[Selection, _Mapping]] = ..., after_revision: _Optional[int] = ..., subscriber_id: _Optional[str] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("header", "is_snapshot", "snapshot", "events", "revision", "is_progress", "guard")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    IS_SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    IS_PROGRESS_FIELD_NUMBER: _ClassVar[int]
    GUARD_FIELD_NUMBER: _ClassVar[int]
    header: Header
    is_snapshot: bool
    snapshot: _containers.RepeatedCompositeFieldContainer[Instance]
    events: _containers.RepeatedCompositeFieldContainer[InstanceEvent]
    revision: int
    is_progress: bool
    guard: Guard
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., is_snapshot: bool = ..., snapshot: _Optional[_Iterable[_Union[Instance, _Mapping]]] = ..., events: _Optional[_Iterable[_Union[InstanceEvent, _Mapping]]] = ..., revision: _Optional[int] = ..., is_progress: bool = ..., guard: _Optional[_Union[Guard, _Mapping]] = ...) -> None: ...

class InstanceEvent(_message.Message):
    __slots__ = ("event", "reason", "revision", "instance", "left")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    event: str
    reason: Reason
    revision: int
    instance: Instance
    left: bool
    def __init__(self, event: _Optional[str] = ..., reason: _Optional[_Union[Reason, _Mapping]] = ..., revision: _Optional[int] = ..., instance: _Optional[_Union[Instance, _Mapping]] = ..., left: bool = ...) -> None: ...

class AckRequest(_message.Message):
    __slots__ = ("subscriber_id", "service", "revision")
    SUBSCRIBER_ID_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    subscriber_id: str
    service: ServiceName
    revision: int
    def __init__(self, subscriber_id: _Optional[str] = ..., service: _Optional[_Union[ServiceName, _Mapping]] = ..., revision: _Optional[int] = ...) -> None: ...

class AckResponse(_message.Message):
    __slots__ = ("header", "known")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    header: Header
    known: bool
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., known: bool = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("name", "selection")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SELECTION_FIELD_NUMBER: _ClassVar[int]
    name: InstanceName
    selection: Selection
    def __init__(self, name: _Optional[_Union[InstanceName, _Mapping]] = ..., selection: _Optional[_Union[Selection, _Mapping]] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("header", "instance", "routable", "findings", "recent", "verdict")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    ROUTABLE_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    RECENT_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    header: Header
    instance: Instance
    routable: bool
    findings: _containers.RepeatedCompositeFieldContainer[Finding]
    recent: _containers.RepeatedCompositeFieldContainer[InstanceEvent]
    verdict: str
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., instance: _Optional[_Union[Instance, _Mapping]] = ..., routable: bool = ..., findings: _Optional[_Iterable[_Union[Finding, _Mapping]]] = ..., recent: _Optional[_Iterable[_Union[InstanceEvent, _Mapping]]] = ..., verdict: _Optional[str] = ...) -> None: ...

class Finding(_message.Message):
    __slots__ = ("rule", "passes", "text")
    RULE_FIELD_NUMBER: _ClassVar[int]
    PASSES_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    rule: str
    passes: bool
    text: str
    def __init__(self, rule: _Optional[str] = ..., passes: bool = ..., text: _Optional[str] = ...) -> None: ...

class HistoryRequest(_message.Message):
    __slots__ = ("name", "time_ms", "revision", "from_revision", "until_revision", "limit", "newest_first")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    FROM_REVISION_FIELD_NUMBER: _ClassVar[int]
    UNTIL_REVISION_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    NEWEST_FIRST_FIELD_NUMBER: _ClassVar[int]
    name: InstanceName
    time_ms: int
    revision: int
    from_revision: int
    until_revision: int
    limit: int
    newest_first: bool
    def __init__(self, name: _Optional[_Union[InstanceName, _Mapping]] = ..., time_ms: _Optional[int] = ..., revision: _Optional[int] = ..., from_revision: _Optional[int] = ..., until_revision: _Optional[int] = ..., limit: _Optional[int] = ..., newest_first: bool = ...) -> None: ...

class HistoryResponse(_message.Message):
    __slots__ = ("header", "events", "instances", "unknown", "as_of_revision", "as_of_ms", "oldest_revision", "oldest_ms")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    AS_OF_REVISION_FIELD_NUMBER: _ClassVar[int]
    AS_OF_MS_FIELD_NUMBER: _ClassVar[int]
    OLDEST_REVISION_FIELD_NUMBER: _ClassVar[int]
    OLDEST_MS_FIELD_NUMBER: _ClassVar[int]
    header: Header
    events: _containers.RepeatedCompositeFieldContainer[PastEvent]
    instances: _containers.RepeatedCompositeFieldContainer[Instance]
    unknown: _containers.RepeatedCompositeFieldContainer[InstanceName]
    as_of_revision: int
    as_of_ms: int
    oldest_revision: int
    oldest_ms: int
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., events: _Optional[_Iterable[_Union[PastEvent, _Mapping]]] = ..., instances: _Optional[_Iterable[_Union[Instance, _Mapping]]] = ..., unknown: _Optional[_Iterable[_Union[InstanceName, _Mapping]]] = ..., as_of_revision: _Optional[int] = ..., as_of_ms: _Optional[int] = ..., oldest_revision: _Optional[int] = ..., oldest_ms: _Optional[int] = ...) -> None: ...

class PastEvent(_message.Message):
    __slots__ = ("time_ms", "event")
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    time_ms: int
    event: InstanceEvent
    def __init__(self, time_ms: _Optional[int] = ..., event: _Optional[_Union[InstanceEvent, _Mapping]] = ...) -> None: ...

class EndGuardRequest(_message.Message):
    __slots__ = ("service", "confirm")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    CONFIRM_FIELD_NUMBER: _ClassVar[int]
    service: ServiceName
    confirm: bool
    def __init__(self, service: _Optional[_Union[ServiceName, _Mapping]] = ..., confirm: bool = ...) -> None: ...

class EndGuardResponse(_message.Message):
    __slots__ = ("header", "held")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    header: Header
    held: int
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., held: _Optional[int] = ...) -> None: ...

class SetSettingsRequest(_message.Message):
    __slots__ = ("service", "settings")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    service: ServiceName
    settings: Settings
    def __init__(self, service: _Optional[_Union[ServiceName, _Mapping]] = ..., settings: _Optional[_Union[Settings, _Mapping]] = ...) -> None: ...

class SetSettingsResponse(_message.Message):
    __slots__ = ("header",)
    HEADER_FIELD_NUMBER: _ClassVar[int]
    header: Header
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ...) -> None: ...

class GetSettingsRequest(_message.Message):
    __slots__ = ("service",)
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    service: ServiceName
    def __init__(self, service: _Optional[_Union[ServiceName, _Mapping]] = ...) -> None: ...

class GetSettingsResponse(_message.Message):
    __slots__ = ("header", "settings", "stored")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    STORED_FIELD_NUMBER: _ClassVar[int]
    header: Header
    settings: Settings
    stored: bool
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., settings: _Optional[_Union[Settings, _Mapping]] = ..., stored: bool = ...) -> None: ...

class Settings(_message.Message):
    __slots__ = ("guard_enabled", "guard_percent", "guard_at_least", "guard_window_s", "guard_hold_s")
    GUARD_ENABLED_FIELD_NUMBER: _ClassVar[int]
    GUARD_PERCENT_FIELD_NUMBER: _ClassVar[int]
    GUARD_AT_LEAST_FIELD_NUMBER: _ClassVar[int]
    GUARD_WINDOW_S_FIELD_NUMBER: _ClassVar[int]
    GUARD_HOLD_S_FIELD_NUMBER: _ClassVar[int]
    guard_enabled: bool
    guard_percent: int
    guard_at_least: int
    guard_window_s: int
    guard_hold_s: int
    def __init__(self, guard_enabled: bool = ..., guard_percent: _Optional[int] = ..., guard_at_least: _Optional[int] = ..., guard_window_s: _Optional[int] = ..., guard_hold_s: _Optional[int] = ...) -> None: ...

class CreateNamespaceRequest(_message.Message):
    __slots__ = ("namespace",)
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    def __init__(self, namespace: _Optional[str] = ...) -> None: ...

class CreateNamespaceResponse(_message.Message):
    __slots__ = ("header", "created")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    header: Header
    created: bool
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., created: bool = ...) -> None: ...

class DeleteNamespaceRequest(_message.Message):
    __slots__ = ("namespace",)
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    def __init__(self, namespace: _Optional[str] = ...) -> None: ...

class DeleteNamespaceResponse(_message.Message):
    __slots__ = ("header", "existed")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    EXISTED_FIELD_NUMBER: _ClassVar[int]
    header: Header
    existed: bool
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., existed: bool = ...) -> None: ...

class ListNamespacesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListNamespacesResponse(_message.Message):
    __slots__ = ("header", "namespaces")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    header: Header
    namespaces: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., namespaces: _Optional[_Iterable[str]] = ...) -> None: ...
