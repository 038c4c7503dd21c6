"""QAPI modules ``job`` and ``migration``: jobs, and the snapshots they make (QEMU: ``qapi/job.json``)."""

from __future__ import annotations

from timevm.qmp_schema.base import Command, Event, Example, Int, QapiEnum, QapiModel, Str


class JobType(QapiEnum):
    SNAPSHOT_LOAD = "snapshot-load"
    SNAPSHOT_SAVE = "snapshot-save"
    SNAPSHOT_DELETE = "snapshot-delete"


class JobStatus(QapiEnum):
    UNDEFINED = "undefined"
    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    READY = "ready"
    STANDBY = "standby"
    WAITING = "waiting"
    PENDING = "pending"
    ABORTING = "aborting"
    CONCLUDED = "concluded"
    NULL = "null"


class JobInfo(QapiModel):
    """``error`` is there if the job has failed.  Progress has no unit; the job is done when both are equal."""

    id: Str
    type: JobType
    status: JobStatus
    current_progress: Int
    total_progress: Int
    error: Str | None = None


class JobStatusData(QapiModel):
    id: Str
    status: JobStatus


class JobArguments(QapiModel):
    id: Str


class SnapshotArguments(QapiModel):
    """``tag``: name of the snapshot; ``vmstate``: block node that takes the machine's state; ``devices``: all nodes."""

    job_id: Str
    tag: Str
    vmstate: Str
    devices: list[Str]


class SnapshotDeleteArguments(QapiModel):
    job_id: Str
    tag: Str
    devices: list[Str]


_LIFE = (
    ("JOB_STATUS_CHANGE", {"id": "job0", "status": "created"}),
    ("JOB_STATUS_CHANGE", {"id": "job0", "status": "running"}),
    ("JOB_STATUS_CHANGE", {"id": "job0", "status": "waiting"}),
    ("JOB_STATUS_CHANGE", {"id": "job0", "status": "pending"}),
    ("JOB_STATUS_CHANGE", {"id": "job0", "status": "concluded"}),
)
_SNAPSHOT = {"job-id": "job0", "tag": "before-crash", "vmstate": "disk0", "devices": ["disk0"]}
_ID_ERRORS = ("Invalid job ID 'ID'", "Job ID 'ID' already in use")

COMMANDS = (
    Command(
        name="snapshot-save",
        documentation=(
            "Start a job that saves a snapshot of the whole machine.  The job's end is the status `concluded`; "
            "`query-jobs` then says whether it failed, and `job-dismiss` forgets it."
        ),
        arguments=SnapshotArguments,
        example=Example(_SNAPSHOT, {}, events=_LIFE),
        errors=_ID_ERRORS,
        hmp="savevm",
    ),
    Command(
        name="snapshot-load",
        documentation="Start a job that puts the whole machine back to a snapshot.  The machine stays paused.",
        arguments=SnapshotArguments,
        example=Example(_SNAPSHOT, {}, events=_LIFE),
        errors=_ID_ERRORS,
        hmp="loadvm",
    ),
    Command(
        name="snapshot-delete",
        documentation="Start a job that deletes a snapshot.",
        arguments=SnapshotDeleteArguments,
        example=Example({"job-id": "job0", "tag": "before-crash", "devices": ["disk0"]}, {}, events=_LIFE),
        errors=_ID_ERRORS,
        hmp="delvm",
    ),
    Command(
        name="query-jobs",
        documentation="All jobs that have not been dismissed.",
        result=list[JobInfo],
        example=Example(
            None,
            [
                {
                    "id": "job0",
                    "type": "snapshot-save",
                    "status": "concluded",
                    "current-progress": 1,
                    "total-progress": 1,
                }
            ],
        ),
        allow_preconfig=True,
        hmp="info jobs",
    ),
    Command(
        name="job-dismiss",
        documentation="Forget a concluded job.",
        arguments=JobArguments,
        example=Example({"id": "job0"}, {}, events=(("JOB_STATUS_CHANGE", {"id": "job0", "status": "null"}),)),
        errors=("Job not found", "Job 'ID' in state 'running' cannot accept command verb 'dismiss'"),
        allow_preconfig=True,
    ),
)

EVENTS = (
    Event(
        "JOB_STATUS_CHANGE",
        "A job moved to another status.",
        JobStatusData,
        {"id": "job0", "status": "concluded"},
    ),
)
