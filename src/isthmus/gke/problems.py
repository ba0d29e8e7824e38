"""What goes wrong between us and Google's cloud, as data.

IsthmusError
├── LibrariesMissing   the extra that speaks to Google is not installed
├── FileRefused        the file of clusters says what we do not understand
├── NoCredentials      nobody is signed in
├── NotPermitted       a permission is missing
├── NoSuchCluster      a cluster is not where the file says
├── ApiDisabled        a project does not use an API
├── CloudFailed        any other refusal, or no answer
├── PlanStopped        the plan has problems that must be settled first
├── StoppedHalfway     a step failed after others were done
├── EndpointRefused    an address for an API that would leak credentials
└── ChangedMeanwhile   something is no longer as it was when the plan was made
"""

from isthmus.base import errors


class LibrariesMissing(errors.IsthmusError):
    """The extra that speaks to Google is not installed."""

    code = "ISM-GKE-001"


class FileRefused(errors.IsthmusError):
    """The file of clusters says what we do not understand."""

    code = "ISM-GKE-002"


class NoCredentials(errors.IsthmusError):
    """Nobody is signed in."""

    code = "ISM-GKE-003"


class NotPermitted(errors.IsthmusError):
    """A permission is missing."""

    code = "ISM-GKE-004"


class NoSuchCluster(errors.IsthmusError):
    """A cluster is not where the file says."""

    code = "ISM-GKE-005"


class ApiDisabled(errors.IsthmusError):
    """A project does not use an API."""

    code = "ISM-GKE-006"


class CloudFailed(errors.IsthmusError):
    """Any other refusal, or no answer."""

    code = "ISM-GKE-007"


class PlanStopped(errors.IsthmusError):
    """The plan has problems that must be settled first."""

    code = "ISM-GKE-008"


class StoppedHalfway(errors.IsthmusError):
    """A step failed; the detail names what was done and what was not."""

    code = "ISM-GKE-009"


class EndpointRefused(errors.IsthmusError):
    """An address for an API that would send credentials in plain text."""

    code = "ISM-GKE-010"


class ChangedMeanwhile(errors.IsthmusError):
    """Something is no longer as it was when the plan was made."""

    code = "ISM-GKE-011"
