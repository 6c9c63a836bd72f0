-- SPDX-License-Identifier: GPL-2.0-or-later
-- What a database does: bulk insert, indexes, point and range queries, text search, joins, updates, deletes. SCALE rows.
-- The numbers are pseudo-random: a multiplicative hash of the row number.
PRAGMA journal_mode = MEMORY;
PRAGMA synchronous = OFF;
CREATE TABLE item (id INTEGER PRIMARY KEY, value INTEGER, score REAL, name TEXT);
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < SCALE)
	INSERT INTO item SELECT i, (i * 2654435761) % 1000003, ((i * 40503) % 65536) / 65536.0,
		printf('item %08x of %d', (i * 2654435761) & 0xffffffff, i) FROM n;
COMMIT;
CREATE INDEX item_value ON item (value);
CREATE INDEX item_name ON item (name);
SELECT count(*), sum(value), round(avg(score), 6) FROM item;
SELECT count(*) FROM item WHERE name LIKE '%7f%3%';
SELECT sum(length(replace(name, 'item', 'entry'))) FROM item;
WITH RECURSIVE q(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM q WHERE i < SCALE / 4)
	SELECT sum((SELECT count(*) FROM item WHERE value BETWEEN q.i * 40 AND q.i * 40 + 200)) FROM q;
SELECT a.value % 97 AS k, count(*), max(b.score) FROM item a JOIN item b ON b.id = (a.value % SCALE) + 1
	GROUP BY k ORDER BY 2 DESC, 1 LIMIT 5;
BEGIN;
UPDATE item SET value = value + 7 WHERE id % 5 = 0;
UPDATE item SET name = name || ' again' WHERE value % 11 = 3;
DELETE FROM item WHERE id % 7 = 1;
COMMIT;
SELECT name FROM item ORDER BY score DESC, id LIMIT 3;
SELECT group_concat(c) FROM (SELECT count(DISTINCT value % 1000) AS c FROM item GROUP BY id % 13);
PRAGMA integrity_check;
