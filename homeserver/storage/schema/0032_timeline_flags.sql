-- One index of a room's timeline in place of two: what this server sent is found in it by the flags,
-- without looking at the events themselves.
DROP INDEX events_sent_here_in_room;
DROP INDEX events_timeline;
CREATE INDEX events_timeline ON events (room_nid, pos, flags);
