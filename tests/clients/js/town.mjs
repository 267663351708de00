// People with stock clients, and waiting until something is so.

import * as sdk from "matrix-js-sdk";
import { logger } from "matrix-js-sdk/lib/logger.js";
import { RustBackupManager } from "matrix-js-sdk/lib/rust-crypto/backup.js";

logger.setLevel("warn");
// Clients wait up to ten seconds, so that not all of them back up a new key at the same moment.
RustBackupManager.maxBackupLoopStartDelayMillis = 0;

const PATIENCE_MS = 20_000;
const PASSWORD = "correct horse battery staple";

/** Wait until `look()` gives something that is true, and return it; fail telling what was waited for. */
export async function until(what, look) {
    const deadline = Date.now() + PATIENCE_MS;
    for (;;) {
        const found = await look();
        if (found) return found;
        if (Date.now() > deadline) throw new Error(`waited in vain for: ${what}`);
        await new Promise((resolve) => setTimeout(resolve, 20));
    }
}

export async function refused(promise) {
    try {
        await promise;
    } catch (error) {
        return { errcode: error.errcode, status: error.httpStatus };
    }
    throw new Error("it was not refused");
}

/** One device of one person. */
export class Person {
    constructor(client, password) {
        this.client = client;
        this.password = password;
    }

    get crypto() {
        return this.client.getCrypto();
    }

    get id() {
        return this.client.getUserId();
    }

    /** Agrees to user-interactive authentication with the password. */
    authenticate = async (makeRequest) => {
        try {
            return await makeRequest(null);
        } catch (error) {
            return await makeRequest({
                type: "m.login.password",
                identifier: { type: "m.id.user", user: this.id },
                password: this.password,
                session: error.data?.session,
            });
        }
    };

    /** Cross-signing keys, secret storage and a key backup, as a first login sets them up. */
    async setUpEncryption() {
        await this.crypto.bootstrapCrossSigning({ authUploadDeviceSigningKeys: this.authenticate });
        await this.crypto.bootstrapSecretStorage({
            createSecretStorageKey: async () => {
                this.recoveryKey = await this.crypto.createRecoveryKeyFromPassphrase();
                return this.recoveryKey;
            },
            setupNewSecretStorage: true,
            setupNewKeyBackup: true,
        });
    }

    /** Take over the identity that another device left in secret storage. */
    async unlock() {
        await until("the own identity", () => this.crypto.userHasCrossSigningKeys(this.id, true));
        await this.crypto.bootstrapCrossSigning({});
    }

    /** The current backup as the server describes it, once it has so many keys. */
    backup(keys) {
        return until(`${keys} keys in the backup of ${this.id}`, async () => {
            const backup = await this.client.http.authedRequest("GET", "/room_keys/version");
            return backup.count === keys && backup;
        });
    }

    /** The room, once a sync brought it with the person as a member. */
    room(roomId) {
        return until(`${this.id} in ${roomId}`, () => {
            const room = this.client.getRoom(roomId);
            return room?.getMyMembership() === "join" && room;
        });
    }

    /** The event of that id, decrypted if it can be. */
    async event(roomId, eventId) {
        const room = await this.room(roomId);
        const event = await until(`event ${eventId} at ${this.id}`, () => room.findEventById(eventId));
        await until(`${eventId} decrypted at ${this.id}`, () => !event.isBeingDecrypted());
        return event;
    }

    /** The text of a message, once it is there and decrypted. */
    async text(roomId, eventId) {
        const event = await this.event(roomId, eventId);
        return until(`the text of ${eventId} at ${this.id}`, () => {
            return !event.isDecryptionFailure() && event.getContent().body;
        });
    }

    async say(roomId, body, more = {}) {
        const content = { msgtype: "m.text", body, ...more };
        return (await this.client.sendEvent(roomId, "m.room.message", content)).event_id;
    }
}

/** The people of one story, whose names no other story uses. */
export class Town {
    constructor(server, name) {
        this.server = server;
        this.name = name;
        this.people = [];
    }

    async post(path, body) {
        const reply = await fetch(`${this.server}/_matrix/client/v3${path}`, {
            method: "POST",
            body: JSON.stringify(body),
        });
        if (!reply.ok) throw new Error(`${path}: ${reply.status} ${await reply.text()}`);
        return reply.json();
    }

    /** A new account, on its first device, syncing. */
    async person(name, options = {}) {
        const body = { username: `${name}-${this.name}`, password: PASSWORD, auth: { type: "m.login.dummy" } };
        return this.arrive(await this.post("/register", body), options);
    }

    /** Another device of a person. */
    async device(person, options = {}) {
        return this.arrive(await this.logIn(person), options);
    }

    logIn(person) {
        return this.post("/login", {
            type: "m.login.password",
            identifier: { type: "m.id.user", user: person.id },
            password: PASSWORD,
        });
    }

    /** `optionsWith(client)` gives options that are made of the client. */
    async arrive(session, { encrypts = false, recoveryKey, optionsWith = () => ({}), ...options }) {
        const client = sdk.createClient({
            baseUrl: this.server,
            userId: session.user_id,
            deviceId: session.device_id,
            accessToken: session.access_token,
            timelineSupport: true,
            verificationMethods: ["m.sas.v1"],
            cryptoCallbacks: {
                getSecretStorageKey: async ({ keys }) => {
                    const key = person.recoveryKey;
                    return key ? [Object.keys(keys)[0], key.privateKey] : null;
                },
                cacheSecretStorageKey: () => {},
            },
        });
        const person = new Person(client, PASSWORD);
        person.recoveryKey = recoveryKey;
        /** Whether it is told of members only as it needs them. */
        const made = optionsWith(client);
        person.isLazy = Boolean(options.lazyLoadMembers || made.slidingSync);
        this.people.push(person);
        if (encrypts) await client.initRustCrypto({ useIndexedDB: false });
        const usual = { initialSyncLimit: 20, threadSupport: true, pollTimeout: 5000 };
        await client.startClient({ ...usual, ...made, ...options });
        await until(`the first sync of ${person.id}`, () => client.isInitialSyncComplete());
        return person;
    }

    /** A room of the first of them that all others have joined, and all know to have joined. */
    async sharedRoom([owner, ...guests], options = {}) {
        const { room_id: roomId } = await owner.client.createRoom({
            preset: "private_chat",
            invite: guests.map((guest) => guest.id),
            ...options,
        });
        for (const guest of guests) await guest.client.joinRoom(roomId);
        for (const person of [owner, ...guests]) {
            const room = await person.room(roomId);
            // By their events: what is said before these have come stands before them in the library's timeline.
            const isHere = (other) => person.isLazy || room.getMember(other.id)?.membership === "join";
            const areHere = () => [owner, ...guests].every(isHere) && room.getJoinedMemberCount() === guests.length + 1;
            await until(`${person.id} sees all in ${roomId}`, areHere);
        }
        return roomId;
    }

    encryptedRoom(people, options = {}) {
        const encryption = { algorithm: "m.megolm.v1.aes-sha2" };
        const initial_state = [{ type: "m.room.encryption", state_key: "", content: encryption }];
        return this.sharedRoom(people, { initial_state, ...options });
    }

    close() {
        for (const { client } of this.people) client.stopClient();
    }
}
