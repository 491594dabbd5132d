"""The config file: what may stand in it, how it is read, checked and rewritten.

``schema`` says what there is to set, ``load`` reads a file and answers with the settings or with
every fault of the file at once. Nothing else here is meant to be imported from outside, except
``defaults`` for where the file is and what the first run writes.
"""
