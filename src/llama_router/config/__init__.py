"""The config file: what may stand in it, how it is read, checked, changed and shown.

``schema`` says what there is to set, ``load`` reads a file and answers with the settings or with
every fault of the file at once, ``resolve`` lays the layers over each other for one model, ``edit``
changes single settings of the text, ``secrets`` takes out what nobody is shown, ``json_schema`` is
for editors, ``defaults`` knows where the file is and what the first run writes, ``importers`` read
the files of other programs. All else is meant for these.
"""
