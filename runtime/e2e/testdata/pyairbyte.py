"""Has PyAirbyte sync all streams of sources into DuckDB: pyairbyte.py '[{"name", "program", "config", "database"}, …]'."""

import json
import sys

import airbyte as ab
from airbyte.caches import DuckDBCache

done = {}
for job in json.loads(sys.argv[1]):
    source = ab.get_source(job["name"], config=job["config"], local_executable=job["program"])
    source.check()
    source.select_all_streams()
    cache = DuckDBCache(db_path=job["database"], schema_name="main")
    result = source.read(cache)
    done[job["name"]] = {"records": result.processed_records, "streams": sorted(result.streams)}
    cache.close()
print("DONE " + json.dumps(done))
