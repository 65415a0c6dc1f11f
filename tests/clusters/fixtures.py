"""Clusters for slow tests, a pytest plugin."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clusters.galera import Galera, galera
from tests.clusters.pgbouncer import pgbouncer
from tests.clusters.replication import Replication, replication


@pytest.fixture(scope="session", name="galera")
def galera_cluster() -> Iterator[Galera]:
    """Three MariaDB nodes. Each test begins with `with galera.fresh() as urls`: whatever it does to the nodes, the next
    one finds all of them, as long as one was left."""
    with galera() as cluster:
        yield cluster


@pytest.fixture(name="replication")
def replicated_postgresql(request: pytest.FixtureRequest) -> Iterator[Replication]:
    """A PostgreSQL server with a replica that commits wait for, or, as an indirect parameter says, do not."""
    with replication(getattr(request, "param", "on")) as pair:
        yield pair


@pytest.fixture
def pooled(postgresql: str) -> Iterator[str]:
    """The URL of the database `postgresql` through PgBouncer, with two connections for all."""
    with pgbouncer(postgresql) as url:
        yield url
