"""What is remembered across restarts, in one SQLite file of the state folder."""

STORE_FILE_NAME = "store.sqlite3"
