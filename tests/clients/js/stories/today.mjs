import { SlidingSync } from "matrix-js-sdk/lib/sliding-sync.js";
import { deflateSync, crc32 } from "node:zlib";
import { until } from "../town.mjs";

const STATE = [["m.room.member", "$ME"], ["m.room.member", "$LAZY"], ["m.room.name", ""], ["m.room.encryption", ""]];

/** Options that let a client follow the newest rooms of one list, and whichever it subscribes to. */
function sliding(last) {
    return (client) => {
        const wanted = { timeline_limit: 1, required_state: STATE };
        const rooms = new Map([["rooms", { ranges: [[0, last]], ...wanted }]]);
        const open = { timeline_limit: 20, required_state: STATE };
        return { slidingSync: new SlidingSync(client.baseUrl, rooms, open, client, 5000) };
    };
}

export async function slidingSync(town) {
    const bob = await town.person("bob");
    const alice = await town.person("alice", { optionsWith: sliding(2) });
    const names = ["Attic", "Bath", "Cellar", "Den", "Entrance"];
    const rooms = {};
    for (const name of names) {
        const { room_id } = await bob.client.createRoom({ name, preset: "public_chat" });
        await alice.client.joinRoom(room_id);
        rooms[name] = room_id;
    }
    for (const number of Array(5).keys()) await bob.say(rooms.Attic, `old ${number}`);
    const late = await town.device(alice, { optionsWith: sliding(2) });
    const shown = () => late.client.getRooms().map((room) => room.name).sort();
    await until("the three newest rooms", () => shown().length === 3);
    const first = shown();
    const all = late.client.syncApi?.slidingSync ?? late.client.clientOpts?.slidingSync;
    const count = all.getListData("rooms").joinedCount;

    all.setListRanges("rooms", [[0, 9]]);
    await until("all rooms", () => shown().length === names.length);
    all.modifyRoomSubscriptions(new Set([rooms.Attic]));
    const texts = (room) => room.getLiveTimeline().getEvents().map((event) => event.getContent().body).filter(Boolean);
    const attic = await late.room(rooms.Attic);
    await until("what was said before", () => texts(attic).length === 5);

    await bob.client.sendTyping(rooms.Attic, true, 20_000);
    await until("Bob types", () => attic.getMember(bob.id)?.typing);
    const said = await late.say(rooms.Attic, "hello");
    const heard = await bob.text(rooms.Attic, said);
    await bob.client.sendReadReceipt(await bob.event(rooms.Attic, said));
    await until("Bob has read it", () => attic.hasUserReadEvent(bob.id, said));
    await alice.client.setAccountData("org.example.colour", { colour: "red" });
    await until("what Alice notes", () => late.client.getAccountData("org.example.colour"));
    return {
        first,
        count,
        heard,
        texts: texts(attic),
        colour: late.client.getAccountData("org.example.colour").getContent().colour,
        bob: attic.getMember(bob.id).membership,
    };
}

export async function encryptedSlidingSync(town) {
    const bob = await town.person("bob", { encrypts: true });
    const alice = await town.person("alice", { encrypts: true, optionsWith: sliding(9) });
    const roomId = await town.encryptedRoom([bob, alice]);
    await until("Bob knows Alice's device", async () => {
        const devices = await bob.crypto.getUserDeviceInfo([alice.id]);
        return devices.get(alice.id)?.size === 1;
    });
    const to = await alice.text(roomId, await bob.say(roomId, "can you read this?"));
    const back = await bob.text(roomId, await alice.say(roomId, "every word"));
    return { to, back };
}

function chunk(type, data) {
    const named = Buffer.concat([Buffer.from(type), data]);
    const [length, sum] = [Buffer.alloc(4), Buffer.alloc(4)];
    length.writeUInt32BE(data.length);
    sum.writeUInt32BE(crc32(named));
    return Buffer.concat([length, named, sum]);
}

/** A picture of one colour, as PNG. */
function picture(width, height) {
    const size = Buffer.alloc(13);
    size.writeUInt32BE(width, 0);
    size.writeUInt32BE(height, 4);
    size.set([8, 2], 8);
    const row = Buffer.concat([Buffer.from([0]), Buffer.alloc(width * 3, 0x40)]);
    const rows = deflateSync(Buffer.concat(Array(height).fill(row)));
    const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
    return Buffer.concat([signature, chunk("IHDR", size), chunk("IDAT", rows), chunk("IEND", Buffer.alloc(0))]);
}

export async function media(town) {
    const [alice, bob] = [await town.person("alice"), await town.person("bob")];
    const roomId = await town.sharedRoom([alice, bob]);
    const bytes = picture(400, 300);
    const { content_uri: url } = await alice.client.uploadContent(new Blob([bytes]), {
        name: "wall.png",
        type: "image/png",
    });
    const sent = await alice.client.sendEvent(roomId, "m.room.message", { msgtype: "m.image", body: "wall.png", url });
    const seen = (await bob.event(roomId, sent.event_id)).getContent().url;
    const get = async (person, ...how) => {
        const address = person.client.mxcUrlToHttp(seen, ...how, false, true, true);
        const reply = await fetch(address, { headers: { Authorization: `Bearer ${person.client.getAccessToken()}` } });
        return { status: reply.status, type: reply.headers.get("Content-Type"), bytes: Buffer.from(await reply.arrayBuffer()) };
    };
    const whole = await get(bob, undefined, undefined, undefined);
    const small = await get(bob, 96, 96, "scale");
    const open = await fetch(bob.client.mxcUrlToHttp(seen, undefined, undefined, undefined, false, true, false));
    const limits = await bob.client.getMediaConfig(true);
    await alice.client.redactEvent(roomId, sent.event_id);
    await until("the picture is gone", async () => (await get(bob, undefined, undefined, undefined)).status === 404);
    return {
        same: whole.bytes.equals(bytes),
        type: whole.type,
        smaller: small.status === 200 && small.bytes.readUInt32BE(16),
        open: open.status,
        limited: limits["m.upload.size"] > 0,
    };
}

export async function search(town) {
    const [alice, bob] = [await town.person("alice"), await town.person("bob")];
    const roomId = await town.sharedRoom([alice, bob]);
    const eve = await town.person("eve");
    const { room_id: hers } = await eve.client.createRoom({});
    const said = {};
    for (const text of ["Where is the teapot?", "茶壶在厨房里", "お茶を飲みましょう", "ห้องครัวอยู่ที่ไหน", "nothing to see"]) {
        said[text] = await alice.say(roomId, text);
    }
    await eve.say(hers, "my teapot");
    const find = async (term) => {
        const { results } = await bob.client.searchRoomEvents({ term });
        return results.map((result) => result.context.getEvent().getContent().body);
    };
    const found = {};
    for (const term of ["teapot", "厨房", "お茶", "ห้องครัว"]) found[term] = await find(term);
    const edit = { "msgtype": "m.text", "body": "* kettle", "m.new_content": { msgtype: "m.text", body: "Where is the kettle?" } };
    await alice.say(roomId, "", { ...edit, "m.relates_to": { rel_type: "m.replace", event_id: said["Where is the teapot?"] } });
    const edited = { teapot: await find("teapot"), kettle: (await find("kettle")).length };
    await alice.client.redactEvent(roomId, said["茶壶在厨房里"]);
    return { found, edited, redacted: await find("厨房") };
}

export async function delayedEvents(town) {
    const [alice, bob] = [await town.person("alice"), await town.person("bob")];
    const roomId = await town.sharedRoom([alice, bob]);
    const text = (body) => ({ msgtype: "m.text", body });
    const later = (body, delay) =>
        alice.client._unstable_sendDelayedEvent(roomId, { delay }, null, "m.room.message", text(body));
    const soon = await later("in a moment", 300);
    const never = await later("never", 600_000);
    const now = await later("now", 600_000);
    const kept = await later("kept alive", 600_000);
    const scheduled = await alice.client._unstable_getDelayedEvents("scheduled");
    await alice.client._unstable_cancelScheduledDelayedEvent(never.delay_id);
    await alice.client._unstable_restartScheduledDelayedEvent(kept.delay_id);
    await alice.client._unstable_sendScheduledDelayedEvent(now.delay_id);
    const left = await alice.client._unstable_sendDelayedStateEvent(
        roomId, { delay: 400 }, "m.room.topic", { topic: "gone" }, "",
    );
    const room = await bob.room(roomId);
    const bodies = () => room.getLiveTimeline().getEvents().map((event) => event.getContent().body).filter(Boolean);
    await until("both messages", () => bodies().length === 2);
    await until("the topic", () => room.currentState.getStateEvents("m.room.topic", "")?.getContent().topic === "gone");
    const rest = await alice.client._unstable_getDelayedEvents("scheduled");
    return {
        announced: await alice.client.doesServerSupportUnstableFeature("org.matrix.msc4140"),
        ids: new Set([soon, never, now, kept, left].map((each) => each.delay_id)).size,
        scheduled: scheduled.scheduled?.length ?? scheduled.delayed_events?.length,
        bodies: bodies().sort(),
        rest: (rest.scheduled ?? rest.delayed_events).map((each) => each.delay_id === kept.delay_id),
    };
}
