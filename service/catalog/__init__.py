"""Which versions of which models serve now.

folder    what the models folder holds, and whether its files have changed
beside    which of the folders there are no models
retry     when to try again what failed for a reason that may pass
watch     the operating system's word that something changes there
place     where a model is that somebody names, and what its files are
held      what a replaced worker begins with
pins      which files are approved
opening   one model, opened as the service does: tested, given its threads
served    one version as it serves: its queue, its counters, who holds it
split     which version answers where none is named, by weights
splitting lets the weights of the settings and their file hold
catalog   names -> versions -> what serves; to hold a model is a `with`
scans     what the folder holds, again and again
shadow    rows that one version answered are answered by another too, and compared
agreement when two answers are the same, and how far apart they are
shadows   which versions are compared now
reload    fills the catalog from the folder
follow    when to reload
"""
