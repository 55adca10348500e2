"""The index in OpenSearch: BM25 and k-NN in one round trip, filtered inside of both searches."""

from llamabda.adapters.opensearch.connection import Access, Connection
from llamabda.adapters.opensearch.index import OpenSearchIndex
from llamabda.adapters.opensearch.indexes import OpenSearchIndexes
from llamabda.adapters.opensearch.mapping import Layout

__all__ = ["Access", "Connection", "Layout", "OpenSearchIndex", "OpenSearchIndexes"]
