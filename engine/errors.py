"""Everything that can go wrong on purpose; the class decides who is told.

EngineError
├── Refused           the person who asked can mend it; the wording is in cogs/_replies.py
│   ├── InvalidRequest    a prompt, count, seed … outside its range
│   ├── QueueFull         nobody can be accepted just now
│   └── TooManyJobs       this person has enough jobs waiting
├── Repeated          an event that was answered before; nobody is told
├── Misconfigured     the operator can mend it: one sentence that names the thing and the remedy
│   └── InUse             another bot runs on the data folder
├── Cancelled         somebody asked for the job to stop; no fault at all
└── Broken            our fault: logged with its traceback, shown as a reference
"""


class EngineError(Exception):
    """Root of the tree."""


class Refused(EngineError):
    """The person who asked can mend it."""


class InvalidRequest(Refused):
    """One value of a request is outside what it may be.

    `field` is the name of the option, `expectation` completes the sentence "<field> must …"; it is a template for `values`, so that it can be
    told in other languages too.
    """

    def __init__(self, field: str, expectation: str, **values: object) -> None:
        super().__init__(f"{field} must {expectation.format(**values)}")
        self.field = field
        self.expectation = expectation
        self.values = values


class QueueFull(Refused):
    """The whole queue holds as many jobs as it may."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} jobs are waiting already")
        self.limit = limit


class TooManyJobs(Refused):
    """This person has as many unfinished jobs as one person may have."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"already {limit} unfinished jobs of one person")
        self.limit = limit


class Repeated(EngineError):
    """Discord told of one event twice; what is to be done of it is being done."""


class Misconfigured(EngineError):
    """The operator can mend it; the message is one sentence that names the thing and the remedy."""


class InUse(Misconfigured):
    """Another bot runs on the data folder."""


class Cancelled(EngineError):
    """Somebody asked for the job to stop."""


class Broken(EngineError):
    """Our fault; `reference` is what people may quote to the operator, who finds it in the log."""

    def __init__(self, reference: str) -> None:
        super().__init__(f"failed, reference {reference}")
        self.reference = reference
