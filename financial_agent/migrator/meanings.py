"""What the codes mean that are no rule of the house: for `flask db explain`. Each has a title and a reason."""

from __future__ import annotations

# Errors of the engine. Where the error's own text is plain enough for a title, it is None.
ERRORS: dict[str, tuple[str | None, str]] = {
    "FA101": (
        "a setting cannot be used",
        "Settings are read from instance/config.py, the environment and the command line, and judged before "
        "anything is done: a typing error there should not end in a database nobody meant.",
    ),
    "FA102": (
        None,
        "Only SQLite files can be used yet. A database in memory would be a new, empty one for each connection.",
    ),
    "FA103": (
        None,
        "The file would be made, its folder not: a path that leads nowhere is more often a slip than a wish.",
    ),
    "FA104": (
        None,
        "The file, or the server, is there and cannot be used, or it is no database; or no server answers.",
    ),
    "FA105": (None, "SQLite writes a journal beside the database, so it needs the right to write to the folder, too."),
    "FA106": (None, "A target is a number, a name, or a part of one name."),
    "FA107": (None, "A part of a name must belong to one migration only."),
    "FA108": (None, "Without the folder there is nothing to compare the database with."),
    "FA109": (None, "The name becomes a file's name and the migration's name for good."),
    "FA110": (None, "A database is stamped with the environment that it belongs to, so that there has to be one."),
    "FA112": (None, "The command asks about a database, and does not make one."),
    "FA113": (None, "The schema is written there for people and for CI, beside the migrations that make it."),
    "FA114": (None, "A backup is named as `flask db backups` shows it, or by its path."),
    "FA117": (None, "Every error, rule and finding has a code of its own, which is never used for another one."),
    "FA118": (
        None,
        "A URL's parts are told from each other by @, :, / and ?, so these are written percent-encoded inside of them. "
        "What stands there is never shown, as it may be a password.",
    ),
    "FA119": (None, "The drivers of servers are extras: who uses SQLite alone need not have them."),
    "FA201": (None, "A file that is silently skipped is a migration that never ran."),
    "FA202": (None, "Two files with one number have no order. It comes of two branches that were merged."),
    "FA203": (None, "What runs must be what was reviewed, and that is what the folder holds."),
    "FA204": (None, "A migration that cannot be read cannot be skipped either."),
    "FA205": (None, "Text in another encoding would go into the database as other letters."),
    "FA206": (None, "SQLite takes a NUL byte for the end of the text and would not run what stands behind it."),
    "FA207": (None, "What follows is taken for a part of it, to the end of the file."),
    "FA208": (
        "a directive is unknown or misspelt",
        "Read as a comment it would do nothing, and a misspelt section marker would run the way back together with "
        "the way there.",
    ),
    "FA209": (
        "a directive is not complete, or stands in the wrong place",
        "A directive that is half understood would be half obeyed.",
    ),
    "FA210": (
        "the sections of a file are out of order",
        "A file has one up section and behind it at most one down section. In any other order it would not be "
        "certain which statements apply the migration, and which undo it.",
    ),
    "FA211": (None, "A file fresh from `flask db new` must not be recorded as applied by accident."),
    "FA212": (None, "A migration and its record are one transaction; a COMMIT between them would part them."),
    "FA214": (
        None,
        "A transaction over several files is not atomic when power fails, and a backup holds only one of them.",
    ),
    "FA215": (None, "The ledger says what was applied; a migration that writes there could make it say anything."),
    "FA216": (None, "SQLite refuses it inside a transaction, or silently does nothing."),
    "FA217": (None, "What runs must be what was read and judged."),
    "FA218": (None, "What a migration requires has to be there first, in every database that it is applied to."),
    "FA219": (None, "Of migrations that require each other none can be the first."),
    "FA220": (None, "It would run where what it requires does not, in another environment or on another engine."),
    "FA221": (
        "a statement cannot run in batches",
        "It is repeated until it changes nothing, so it has to be one UPDATE, INSERT or DELETE that uses :batch, and "
        "each turn has to leave less to do.",
    ),
    "FA222": (None, "A query that could be read in two ways would hold, or not, for the wrong reason."),
    "FA223": (None, "It would fail when it runs; it is read before that, like any other migration."),
    "FA224": (
        "the functions of a Python migration are not what they have to be",
        "The engine calls up(connection) and down(connection), with its own connection and nothing else.",
    ),
    "FA227": (
        "a rebuild is not written as it has to be",
        "The directive names a table, and the statement below it is that table's new CREATE TABLE; nothing else can be "
        "rebuilt without a loss.",
    ),
    "FA229": (None, "A rebuild makes indexes anew exactly as they were, and this one does not fit the new table."),
    "FA230": (
        "a command of psql or mariadb is no SQL",
        "Those programs carry such commands out themselves, and no server knows them. Nothing but SQL is sent.",
    ),
    "FA231": (None, "The migration and its record belong to one database, and they are undone together."),
    "FA232": (
        "a directive is for SQLite alone",
        "SQLite has to make a table anew to change a column. Elsewhere ALTER TABLE does that.",
    ),
    "FA233": (None, "While tables are locked MySQL writes to no others, the ledger among them."),
    "FA234": (
        "a setting would change how a file is read",
        "Files are split into statements before anything runs, and backslashes and double quotes decide where strings "
        "end.",
    ),
    "FA235": (None, "psql would run what stands on that line behind the rows, where nobody looks for it."),
    "FA236": (None, "A section is kept and run without the one above it, and would be read in another way then."),
    "FA301": (None, "The database refused a statement. The whole migration was undone."),
    "FA302": (
        None,
        "OR ROLLBACK and RAISE(ROLLBACK) end the transaction that keeps the migration and its record together.",
    ),
    "FA303": (None, "Foreign keys were off or deferred while it ran, and are checked before the commit."),
    "FA304": (None, "Without a transaction nothing is undone; the text says how many statements are in effect."),
    "FA305": (None, "There was no space to write; what was begun was undone."),
    "FA306": (None, "A signal asked the run to stop; what was running was undone."),
    "FA228": (None, "Rows that are there need a value, and a guess would be one that nobody chose."),
    "FA307": (None, "The author's own assertion about the data is false here; the migration was undone."),
    "FA308": (
        None,
        "What is finished stays, and the next run goes on behind it: a batch is a transaction of its own, and so is "
        "each statement where definitions commit by themselves.",
    ),
    "FA309": (None, "The batches would go on for ever, changing the same rows again and again."),
    "FA311": (None, "Commits, rollbacks and closing are the engine's: it keeps the migration and its record together."),
    "FA312": (None, "The function raised an exception; what it had done was undone."),
    "FA314": (None, "A rebuild keeps every row; the counts before and after are compared."),
    "FA315": (None, "Views and triggers are made anew exactly as they were, and this one does not fit the new table."),
    "FA316": (None, "The new constraints hold for the rows that are there, too."),
    "FA317": (
        "nobody can tell whether a statement took effect",
        "A run was cut off in a statement that commits by itself, or in a procedure that may have committed, and the "
        "schema does not show what became of it. To run it again could do it twice, to leave it out could leave it "
        "undone.",
    ),
    "FA320": (
        None,
        "The lock of a run lives as long as the connection that took it. Without it another run may have begun, so "
        "this one stopped before it would have committed anything more.",
    ),
    "FA321": (
        None,
        "A commit that was on its way when the connection broke has taken place as a whole, or not at all; the ledger "
        "was asked anew, and the text says which.",
    ),
    "FA325": (
        "what a run made for its connection is gone",
        "Temporary tables, and variables whose value came from the data, go with the connection of the run that failed."
        " What stands behind would find no table, or NULL, and do something else.",
    ),
    "FA401": (None, "DROP TABLE deletes the rows first, and each of them takes its children with it."),
    "FA402": (None, "There is no down section, or none that can be used."),
    "FA403": (None, "Nobody can be asked without a terminal, and the answer is never taken from the environment."),
    "FA404": (None, "Under another name it would run a second time."),
    "FA405": (None, 'MIGRATE_ON_STARTUP is "check": a release must not serve a database that is behind it.'),
    "FA406": (None, "What was agreed to is no longer what would be undone."),
    "FA407": (None, "A table of that name is there, and it is not the one that this tool makes."),
    "FA408": (None, "It was changed in the ledger, or is damaged there."),
    "FA409": (None, "A baseline says what is applied; on a database that has a ledger that is known already."),
    "FA410": (
        None,
        "Repairing accepts a file as it is now; where it is as it was applied, there is nothing to accept.",
    ),
    "FA411": (None, "The answer was no, or none."),
    "FA412": (None, "Those that were applied were written, and tested, without it."),
    "FA413": (None, "An applied migration keeps its number, and a number that is taken is nobody else's."),
    "FA414": (None, "Which migrations have run is told by the ledger; without it the schema has to match one version."),
    "FA415": (None, "A rehearsal must not touch anything but its copy."),
    "FA416": (None, "Under another number it would run a second time."),
    "FA417": (None, "The history and the ledger disagree, so one of them was changed by a hand."),
    "FA418": (None, "Nobody should migrate production with a development configuration by mistake."),
    "FA419": (None, "What stays would be left without what it was written for."),
    "FA430": (None, "A run that destroys something begins with a backup, and without one it does not begin."),
    "FA431": (None, "A backup is examined before it is trusted."),
    "FA432": (None, "Restoring replaces the database, so all that could go wrong is looked at first."),
    "FA433": (None, "A copy needs as much space as the database."),
    "FA434": (None, "A file that somebody wrote by hand must not be replaced by one that a program makes."),
    "FA435": (None, "The lock file lies in the folder of the migrations."),
    "FA436": (None, "A program that is older than the server leaves out what it does not know, or fails halfway."),
    "FA437": (
        None,
        "On MySQL and MariaDB the tables are exchanged at once, and triggers, views, routines and events behind them. "
        "Restoring once more does all of it.",
    ),
    "FA438": (None, "The connection to the server broke while it was told to commit. The server did so, or did not."),
    "FA450": (
        None,
        "What a migration would do is tried in a database of its own, beside the one that matters, which is dropped "
        "behind it. The user of the connection needs the right to make one.",
    ),
    "FA451": (None, "The server's own programs know its databases best: they are used, and not written anew."),
    "FA452": (None, "It is one of the programs that come with the server's client."),
    "FA501": (None, "One run at a time; the lock dies with the process that holds it."),
    "FA502": (None, "SQLite lets one connection write at a time."),
    "FA503": (
        None,
        "A statement that waits for a lock keeps everybody behind it waiting, so it gives up soon (lock_timeout in the "
        "URL, 5 s) and is tried again, until --wait ends. What it waited for is told with who holds it.",
    ),
    "FA509": (
        "the connection to the server was lost",
        "The server died, or was stopped, or the network was cut. What the migration had not committed is undone by "
        "the server; what it had is in its records, and the next run goes on behind it.",
    ),
}

# The findings that are less than errors.
WARNINGS = {"FA651", "FA658"}
NOTES = {"FA655", "FA660", "FA661", "FA662", "FA663", "FA670"}

# Findings of `flask db check` that are no rule's: of the proof, and of the lock file.
FINDINGS: dict[str, tuple[str, str]] = {
    "FA506": (
        "the node is outside of the cluster's majority",
        "A node of a Galera cluster that has lost the majority, or is still getting what it missed, knows neither what "
        "the others commit nor may it commit itself.",
    ),
    "FA650": ("it cannot be applied", "It does not run on the schema that the migrations before it make."),
    "FA651": (
        "it fails where there are rows",
        "It runs on empty tables, which is what tests have, and not on tables with rows, which is what production has.",
    ),
    "FA652": ("its down section does not run", "A rollback is needed on a bad day, and would fail then."),
    "FA653": (
        "its down section leaves another schema",
        "Behind a rollback the schema must be the one before, or the next `migrate` finds what it does not expect.",
    ),
    "FA654": (
        "its down section leaves other rows",
        "It deletes or leaves rows that its up section did not touch or make.",
    ),
    "FA655": (
        "its down section does not bring changed rows back",
        "What an up section overwrites or deletes is often gone for good. It should be known before a rollback is "
        "chosen.",
    ),
    "FA656": ("it cannot be applied again", "Its down section leaves something that is in the way of a second time."),
    "FA657": (
        "applied again, it does something else",
        "Its down section leaves something, so that a database that was rolled back differs from one that was not.",
    ),
    "FA658": (
        "its down section fails where there are rows",
        "It runs on what the up section leaves, and not once the application has written there.",
    ),
    "FA660": ("it has no down section", "It cannot be rolled back. That may be right; it should be known."),
    "FA661": ("it is not proven on rows", "The generated rows do not suit it, which proves nothing: real ones may."),
    "FA662": ("a table could not be given rows", "Its constraints leave no row that could be generated."),
    "FA663": ("it is not proven", "It needs what a scratch database has not, or one before it cannot be applied."),
    "FA670": (
        "there is no lock file",
        "With one, two branches that each add a migration conflict in git, where somebody looks, and not in "
        "production.",
    ),
    "FA671": (
        "the lock file lacks a migration",
        "A file was added without it, so that a second one would not conflict.",
    ),
    "FA672": (
        "a migration that is locked is gone",
        "Databases that have it applied can no longer be told to be right.",
    ),
    "FA673": ("a migration was edited after it was locked", "Databases that have it applied have what it was before."),
    "FA674": ("the lock file cannot be read", "A merge left its marks, or a hand something that is no line of it."),
}
