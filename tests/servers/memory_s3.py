"""The part of a boto3 client that the pipeline uses, over a dict: for tests that call it ten thousand times."""

from __future__ import annotations

import io
from typing import Any

from botocore.exceptions import ClientError


class MemoryS3:
    """Objects of one store, with conditional puts."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], tuple[bytes, dict[str, str]]] = {}

    def put_object(self, *, Bucket: str, Key: str, Body: Any, IfNoneMatch: str, Metadata: dict[str, str]) -> Any:
        assert IfNoneMatch == "*"
        if (Bucket, Key) in self.objects:
            raise _refused("PreconditionFailed")
        self.objects[Bucket, Key] = bytes(Body) if isinstance(Body, bytes | bytearray) else Body.read(), Metadata
        return {}

    def head_object(self, *, Bucket: str, Key: str) -> Any:
        data, metadata = self._found(Bucket, Key)
        return {"ContentLength": len(data), "Metadata": metadata}

    def get_object(self, *, Bucket: str, Key: str, Range: str = "") -> Any:
        data, metadata = self._found(Bucket, Key)
        headers = {"etag": "one", **{f"x-amz-meta-{name}": value for name, value in metadata.items()}}
        if Range:
            first, last = Range.removeprefix("bytes=").split("-")
            headers["content-range"] = f"bytes {first}-{last}/{len(data)}"
            data = data[int(first) : int(last) + 1]
        headers["content-length"] = str(len(data))
        return {"ResponseMetadata": {"HTTPHeaders": headers}, "Body": io.BytesIO(data)}

    def delete_object(self, *, Bucket: str, Key: str) -> Any:
        self.objects.pop((Bucket, Key), None)
        return {}

    def list_objects_v2(self, *, Bucket: str, Prefix: str, ContinuationToken: str = "") -> Any:
        keys = sorted(k for b, k in self.objects if b == Bucket and k.startswith(Prefix) and k > ContinuationToken)
        page = keys[:3]
        return {
            "Contents": [{"Key": k, "Size": len(self.objects[Bucket, k][0])} for k in page],
            "IsTruncated": len(keys) > len(page),
            "NextContinuationToken": page[-1] if page else "",
        }

    def _found(self, bucket: str, key: str) -> tuple[bytes, dict[str, str]]:
        try:
            return self.objects[bucket, key]
        except KeyError:
            raise _refused("NoSuchKey") from None


def _refused(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": ""}}, "Operation")
