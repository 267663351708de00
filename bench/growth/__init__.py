"""How the cost of an operation grows: with members, rooms, events, waiting clients and destinations."""
