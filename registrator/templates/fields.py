"""The fields of an inspection, by the names and types that the original's library gives them.

Templates of the original use these names (``.HostConfig.CPUShares``). The type says what a field is
that the engine leaves out or sets to null. An engine's other fields are there under their own
names. They have the type `any`.
"""

# A struct's fields in their order, with the type after a colon. Without one it is a string.
_STRUCTS = {
    "Container": (
        "ID Created:time Path Args:[]string Config:*Config State:State Image Node:*SwarmNode "
        "NetworkSettings:*NetworkSettings SysInitPath ResolvConfPath HostnamePath HostsPath "
        "LogPath Name Driver Mounts:[]Mount Volumes:map[string]string VolumesRW:map[string]bool "
        "HostConfig:*HostConfig ExecIDs:[]string GraphDriver:*GraphDriver RestartCount:int "
        "AppArmorProfile"
    ),
    "State": (
        "Status Running:bool Paused:bool Restarting:bool OOMKilled:bool RemovalInProgress:bool "
        "Dead:bool Pid:int ExitCode:int Error StartedAt:time FinishedAt:time Health:Health"
    ),
    "Health": "Status FailingStreak:int Log:[]HealthCheck",
    "HealthCheck": "Start:time End:time ExitCode:int Output",
    "SwarmNode": "ID IP Addr Name CPUs:int Memory:int Labels:map[string]string",
    "GraphDriver": "Name Data:map[string]string",
    "Mount": "Name Source Destination Driver Mode RW:bool",
    "Config": (
        "Hostname Domainname User Memory:int MemorySwap:int MemoryReservation:int "
        "KernelMemory:int CPUShares:int CPUSet PortSpecs:[]string ExposedPorts:map[Port]Empty "
        "PublishService StopSignal StopTimeout:int Env:[]string Cmd:[]string "
        "Healthcheck:*HealthConfig DNS:[]string Image Volumes:map[string]Empty VolumeDriver "
        "WorkingDir MacAddress Entrypoint:[]string SecurityOpts:[]string OnBuild:[]string "
        "Mounts:[]Mount Labels:map[string]string AttachStdin:bool AttachStdout:bool "
        "AttachStderr:bool ArgsEscaped:bool Tty:bool OpenStdin:bool StdinOnce:bool "
        "NetworkDisabled:bool VolumesFrom"
    ),
    "Empty": "",
    "HealthConfig": (
        "Test:[]string Interval:duration Timeout:duration StartPeriod:duration Retries:int"
    ),
    "NetworkSettings": (
        "Networks:map[string]ContainerNetwork IPAddress IPPrefixLen:int MacAddress Gateway Bridge "
        "PortMapping:map[string]map[string]string Ports:map[Port][]PortBinding NetworkID "
        "EndpointID SandboxKey "
        "GlobalIPv6Address GlobalIPv6PrefixLen:int IPv6Gateway LinkLocalIPv6Address "
        "LinkLocalIPv6PrefixLen:int SecondaryIPAddresses:[]string SecondaryIPv6Addresses:[]string"
    ),
    "ContainerNetwork": (
        "Aliases:[]string MacAddress GlobalIPv6PrefixLen:int GlobalIPv6Address IPv6Gateway "
        "IPPrefixLen:int IPAddress Gateway EndpointID NetworkID"
    ),
    "PortBinding": "HostIP HostPort",
    "HostConfig": (
        "Binds:[]string CapAdd:[]string CapDrop:[]string GroupAdd:[]string ContainerIDFile "
        "LxcConf:[]any PortBindings:map[Port][]PortBinding Links:[]string DNS:[]string "
        "DNSOptions:[]string DNSSearch:[]string ExtraHosts:[]string VolumesFrom:[]string "
        "UsernsMode NetworkMode IpcMode PidMode UTSMode RestartPolicy:RestartPolicy "
        "Devices:[]Device DeviceCgroupRules:[]string LogConfig:LogConfig SecurityOpt:[]string "
        "Cgroup CgroupParent Memory:int MemoryReservation:int KernelMemory:int MemorySwap:int "
        "MemorySwappiness:int CPUShares:int CPUSet CPUSetCPUs CPUSetMEMs CPUQuota:int "
        "CPUPeriod:int CPURealtimePeriod:int CPURealtimeRuntime:int BlkioWeight:int "
        "BlkioWeightDevice:[]any BlkioDeviceReadBps:[]any BlkioDeviceReadIOps:[]any "
        "BlkioDeviceWriteBps:[]any BlkioDeviceWriteIOps:[]any Ulimits:[]ULimit VolumeDriver "
        "OomScoreAdj:int PidsLimit:int ShmSize:int Tmpfs:map[string]string Privileged:bool "
        "PublishAllPorts:bool ReadonlyRootfs:bool OOMKillDisable:bool AutoRemove:bool "
        "StorageOpt:map[string]string Sysctls:map[string]string CPUCount:int CPUPercent:int "
        "IOMaximumBandwidth:int IOMaximumIOps:int Mounts:[]any Init:bool"
    ),
    "RestartPolicy": "Name MaximumRetryCount:int",
    "Device": "PathOnHost PathInContainer CgroupPermissions",
    "LogConfig": "Type Config:map[string]string",
    "ULimit": "Name Soft:int Hard:int",
}


def _read(text: str) -> dict[str, str]:
    parts = (part.partition(":") for part in text.split())
    return {name: kind or "string" for name, _, kind in parts}


# The type of each field, by struct and name.
FIELDS = {struct: _read(text) for struct, text in _STRUCTS.items()}

# The names without case, by struct.
BY_LOWER_CASE = {struct: {name.lower(): name for name in names} for struct, names in FIELDS.items()}
