"""The specification's interfaces as types, with the names that they have in JSON. Nothing here exists at run time."""

from __future__ import annotations

from typing import Any, Dict, List, Literal, TypedDict

AgentPersona = Literal["assistant", "specialist", "guardian", "orchestrator", "utility", "companion"]


class _MemoryConfig(TypedDict):
    type: Literal["volatile", "persistent", "hybrid"]
    backend: Literal["memory", "indexeddb", "sqlite", "redis"]
    persistent: bool


class MemoryConfig(_MemoryConfig, total=False):
    ttl: float
    """Seconds."""
    maxSize: float
    """MB."""
    sharedAccess: bool


class _Permission(TypedDict):
    resource: str
    actions: List[Literal["read", "write", "execute", "delete"]]


class Permission(_Permission, total=False):
    scope: str


class _NetworkPolicy(TypedDict):
    allowOutbound: bool


class NetworkPolicy(_NetworkPolicy, total=False):
    allowedDomains: List[str]
    blockedDomains: List[str]
    maxConnections: int


class FileAccessPolicy(TypedDict):
    allowedPaths: List[str]
    readOnly: bool
    tempFileAccess: bool


class SecurityConfig(TypedDict):
    sandbox: bool
    permissions: List[Permission]
    crypto: Literal["ed25519", "secp256k1", "none"]
    networkAccess: NetworkPolicy
    fileAccess: FileAccessPolicy


class Dependency(TypedDict):
    name: str
    version: str
    type: Literal["module", "service", "agent"]
    required: bool


class _AgentMetadata(TypedDict):
    author: str
    description: str
    license: str
    tags: List[str]
    created: str
    updated: str


class AgentMetadata(_AgentMetadata, total=False):
    documentation: str


class Runtime(TypedDict, total=False):
    kind: Literal["node", "python", "native", "exec", "mcp"]
    protocol: Literal["none", "runner"]
    args: List[str]
    env: Dict[str, str]


class _AgentManifest(TypedDict):
    id: str
    name: str
    version: str
    entry: str
    persona: AgentPersona
    capabilities: List[str]
    memory: MemoryConfig
    security: SecurityConfig
    dependencies: List[Dependency]
    metadata: AgentMetadata


class AgentManifest(_AgentManifest, total=False):
    runtime: Runtime


class ErrorSummary(TypedDict):
    type: str
    count: int
    lastOccurrence: str
    message: str


class HealthStatus(TypedDict, total=False):
    """Fields that on_health_check leaves out are filled in by the runtime."""

    status: Literal["healthy", "warning", "critical"]
    uptime: int
    """Milliseconds."""
    memoryUsage: float
    """MB."""
    cpuUsage: float
    """Percent of one core."""
    lastActivity: str
    errors: List[ErrorSummary]


class KLPMetadata(TypedDict, total=False):
    priority: Literal["low", "normal", "high", "urgent"]
    ttl: int
    """Seconds."""
    traceparent: str


class _MemoryWrite(TypedDict):
    key: str
    value: Any


class MemoryWrite(_MemoryWrite, total=False):
    """An entry of memory.set_many()."""

    ttl: float
    """Seconds."""
    if_absent: bool
    if_version: int


class AgentLimits(TypedDict):
    messageMs: int
    inFlight: int
    frameBytes: int


Json = Any
