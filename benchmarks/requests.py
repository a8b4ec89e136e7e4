"""S3 requests and bytes of single operations, counted by a proxy in front of a real S3 API on this machine."""

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

from rich.table import Table

from tests.support.proxy import Proxy
from tests.support.servers import aws_environment, make_bucket, start_ministack
from vxdata.schemas import Resource
from vxdata.sdk import Client, F
from vxdata.sdk.ingest import ingest
from vxdata.sources.idc import find_release, read_release

KINDS = ("GET", "HEAD", "LIST", "PUT", "POST", "DELETE")


def measure(collections: tuple[str, ...] = ("prostatex", "nlst")) -> Table:
    """Load two collections (600,000 volumes) and count what each operation costs."""
    table = Table("operation", *KINDS, "KiB read", "KiB written", title="S3 requests")
    with start_ministack() as server, Proxy(server.endpoint_url) as proxy:
        os.environ.update(aws_environment(proxy.endpoint_url))
        make_bucket(server.endpoint_url, "benchmark")
        client = Client("s3://benchmark/lake")
        release = find_release()
        frames = read_release(release, collections)
        ingest(client, frames, valid_from=release.released)
        client.volumes.query().count()
        identifiers = frames["volumes"]["identifier"]
        cold = Client("s3://benchmark/lake")
        patient = frames["patients"]["identifier"][0]
        psa = Resource(identifier="psameasurement/1", parent_identifier=patient, payload={"value": 1.0})
        operations: dict[str, Callable[[], Any]] = {
            "retrieve, warm": lambda: client.volumes.retrieve(identifiers[200_000]),
            "retrieve, cold client": lambda: cold.volumes.retrieve(identifiers[1_000]),
            "update of one volume (append)": lambda: client.volumes.update(identifiers[9], {"volume_type": "T2"}),
            "create of one child, new table": lambda: client.psa_measurements.create(psa),
            "query of one datasource, one column": lambda: (
                client.volumes.query().filter(F.datasource_id == "datasource/prostatex").select("modality").collect()
            ),
        }
        for words, operation in operations.items():
            table.add_row(words, *count(proxy, operation))
    return table


def count(proxy: Proxy, operation: Callable[[], Any]) -> list[str]:
    """Return the cells of one operation: requests by kind, KiB read and written."""
    proxy.reset()
    operation()
    seen = proxy.requests()
    kinds = Counter(record.kind for record in seen)
    sizes = (sum(r.response_bytes for r in seen), sum(r.request_bytes for r in seen))
    return [str(kinds[kind] or "") for kind in KINDS] + [f"{size / 1024:.0f}" for size in sizes]
