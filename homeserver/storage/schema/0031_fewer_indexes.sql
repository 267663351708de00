-- Each index is a page more that every message writes.  What this server sent is looked for room by room
-- (events_sent_here_in_room), and transaction ids are gone through in the order of their key once they are old.
DROP INDEX events_sent_here;
DROP INDEX transaction_ids_age;
