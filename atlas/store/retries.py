"""Which answers of an S3 store are final, what they mean, and how often and after which pauses one asks again."""

from __future__ import annotations

import http.client
import random
import time

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
)
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from gaussianverse.atlas.store.errors import NotFound, StoreError, StoreRefused

ERRORS = (ClientError, BotoCoreError, OSError, http.client.HTTPException, HTTPError, ResponseParserError)
"""Errors that a request may end with; botocore lets the last two through where an error's own body breaks off."""
MISSING = frozenset({"404", "NoSuchKey", "NotFound"})
TAKEN = frozenset({"412", "PreconditionFailed"})
BEYOND = frozenset({"416", "InvalidRange"})
UNSUPPORTED = frozenset({"501", "NotImplemented"})
ARCHIVED = frozenset({"InvalidObjectState"})
"""Answers that say that an object lies in an archive, from which it must be restored before it can be read."""
SKEWED = frozenset({"RequestTimeTooSkewed"})
"""Answers that say that the clocks of store and client are too far apart."""
# The same answer however often one asks. All others may pass, also
#   ExpiredToken     credentials that renew themselves are renewed by then
#   400              all that an answer to HEAD, which has no body, tells of an expired token
#   409              two conditional puts at once: the next try learns who won
FINAL = UNSUPPORTED | ARCHIVED | SKEWED | {
    "401", "403", "AccessDenied", "AllAccessDisabled", "AuthorizationHeaderMalformed", "InvalidAccessKeyId",
    "InvalidBucketName", "NoSuchBucket", "PermanentRedirect", "SignatureDoesNotMatch",
}  # fmt: skip
EXPIRED = frozenset({
    "ExpiredToken", "ExpiredTokenException", "InvalidToken", "RequestExpired", "TokenRefreshRequired",
})  # fmt: skip
"""Answers that say that the credentials have expired."""
DOUBTFUL = EXPIRED | {"400", "401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"}
"""Answers that other credentials might change; the answer to HEAD, which has no body, is a bare number."""
_MENDS = {"400": "; the credentials may have expired: renew them"}
"""What to do about bare numbers."""
FIRST_PAUSE_S, MAX_PAUSE_S = 0.2, 20.0


class Tries:
    """The tries of one operation. A link that is cut again and again, but brings something each time, gets there.

    Args:
        most: tries in a row that bring nothing.
    """

    def __init__(self, most: int) -> None:
        self._most, self._failed = most, 0

    def failed(self, error: Exception, where: str, *, progress: bool = False, so_far: str = "no success") -> None:
        """Return when it is time for another try.

        Raises:
            NotFound, StoreRefused: the answer is final.
            StoreError: these were tries enough.
        """
        if verdict := final(error, where):
            raise verdict from error
        self._failed = 1 if progress else self._failed + 1
        if self._failed >= self._most:
            # the error's own text may quote headers, so only its kind is passed on
            what = code_of(error) or type(error).__name__
            mend = "; the credentials have expired: renew them" if what in EXPIRED else _MENDS.get(what, "")
            raise StoreError(f"{where}: {so_far} after {self._failed} tries in a row ({what}){mend}") from error
        time.sleep(pause_s(self._failed) * random.uniform(0.5, 1.0))


def pause_s(failed: int) -> float:
    """The longest pause after so many failures in a row."""
    return min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (failed - 1))


def code_of(error: Exception) -> str:
    """The code of a store's answer; "" where there was none."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def final(error: Exception, where: str) -> NotFound | StoreRefused | None:
    """The error that a final answer means; None where asking again may help."""
    code = code_of(error)
    if code in MISSING:
        return NotFound(f"{where}: no such object")
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return StoreRefused(
            f"{where}: no credentials; set them up as for the AWS command line, or for a public bucket "
            "StoreOptions(anonymous=True) or --set store.anonymous=true"
        )
    if isinstance(error, ParamValidationError | ProfileNotFound):
        return StoreRefused(f"{where}: {error}")
    if code in ARCHIVED:
        return StoreRefused(f"{where}: archived ({code}); restore it from its archive, then run again")
    if code in SKEWED:
        return StoreRefused(f"{where}: the clock of this machine is not the store's ({code}); set it, by NTP")
    if code in FINAL:
        return StoreRefused(
            f"{where}: the store refuses ({code}); check address, region and permissions, and whether the "
            "credentials are still valid"
        )
    return None
