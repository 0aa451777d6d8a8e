"""Many cases: which images make a case, what was written where, and from what.

| file | what it holds |
| --- | --- |
| `cases` | which images of a folder make up which case, and where the results go |
| `run_case` | one case from image to result; command line and worker both do it so |
| `loop` | the cases of a batch in one process, the next image read meanwhile |
| `image_reader` | reads images in a process of their own; `image_reader_process` is what runs there |
| `pool` | several processes of this computer; `pool_child` is what runs in each |
| `cluster` | the workers of a Dask cluster; `cluster_worker` is what runs on each |
| `claims` | who works on which case |
| `result_file` | one result and the files beside it: what is made, and from what |
| `output_file` | one file of these: what lies there now, and how it is replaced |
| `records` | what was written where and from what, one line of JSON each |
| `report` | what has become of a batch |
| `measures` | place, size and intensities of segments |
| `tables` | the table of a cohort: CSV, Parquet |
| `page` | the same as a page, with pictures |
| `least_sure` | which cases it shows, and how they look |
"""
