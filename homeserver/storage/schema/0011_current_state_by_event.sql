-- State resolution looks at the newest events of a room's state, and no further down than it has to.
CREATE INDEX current_state_by_event ON current_state (room_nid, event_nid);
