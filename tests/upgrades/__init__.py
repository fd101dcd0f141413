"""An installation of an older build keeps its data: fixtures that such a build wrote, read by the present one.

`build_<date>/` is what a build of that day left on disk when its machine lost power: `root.tar.xz` (state folder, jobs'
folders, inputs, a tiny model) and `about.json` (what was asked, by whom, which jobs). `write_fixtures.py` wrote both;
nobody edits them. `old_build.py` unpacks them as if the power had been lost a moment ago.

The tests reach the product by its command, its routes, its processes and its keys, which users and older peers know,
and not by its modules, which may move.
"""
