import { refused, until } from "../town.mjs";

const ENCRYPTS = { encrypts: true };

export async function crossSigning(town) {
    const alice = await town.person("alice", ENCRYPTS);
    const before = await alice.crypto.isCrossSigningReady();
    await alice.setUpEncryption();
    const bob = await town.person("bob", ENCRYPTS);
    const ownDevice = await alice.crypto.getDeviceVerificationStatus(alice.id, alice.client.getDeviceId());
    return {
        before,
        ready: await alice.crypto.isCrossSigningReady(),
        secretStorage: await alice.crypto.isSecretStorageReady(),
        ownDevice: ownDevice.crossSigningVerified,
        published: await bob.crypto.userHasCrossSigningKeys(alice.id, true),
        backup: (await alice.crypto.getActiveSessionBackupVersion()) !== null,
    };
}

export async function chat(town) {
    const [alice, bob] = [await town.person("alice", ENCRYPTS), await town.person("bob", ENCRYPTS)];
    const room = await town.encryptedRoom([alice, bob]);
    const asked = await alice.say(room, "How are you?");
    const answered = await bob.say(room, "Fine!");
    const heard = [await bob.text(room, asked), await alice.text(room, answered)];
    const carol = await town.person("carol", ENCRYPTS);
    await alice.client.invite(room, carol.id);
    await carol.client.joinRoom(room);
    await until("Alice sees Carol", async () => (await alice.room(room)).getJoinedMemberCount() === 3);
    const welcome = await alice.say(room, "Welcome, Carol");
    const carols = await carol.text(room, welcome);
    const early = await carol.event(room, asked);
    return {
        heard,
        carols,
        early: early.isDecryptionFailure(),
        onTheWire: (await bob.event(room, asked)).getWireType(),
    };
}

export async function backup(town) {
    const alice = await town.person("alice", ENCRYPTS);
    await alice.setUpEncryption();
    const bob = await town.person("bob", ENCRYPTS);
    const room = await town.encryptedRoom([alice, bob]);
    const said = [];
    for (const text of ["one", "two", "three"]) said.push(await bob.say(room, text));
    for (const eventId of said) await alice.text(room, eventId);
    said.push(await alice.say(room, "four"));
    const version = await alice.crypto.getActiveSessionBackupVersion();
    await alice.backup(2);
    await alice.client.logout(true);

    const laptop = await town.device(alice, { ...ENCRYPTS, recoveryKey: alice.recoveryKey });
    const before = (await laptop.event(room, said[0])).isDecryptionFailure();
    await laptop.unlock();
    await laptop.crypto.loadSessionBackupPrivateKeyFromSecretStorage();
    const check = await laptop.crypto.checkKeyBackupAndEnable();
    const restored = await laptop.crypto.restoreKeyBackup();
    const texts = [];
    for (const eventId of said) texts.push(await laptop.text(room, eventId));
    const own = await laptop.crypto.getDeviceVerificationStatus(laptop.id, laptop.client.getDeviceId());
    return {
        before,
        sameVersion: check.backupInfo.version === version,
        trusted: check.trustInfo.trusted,
        restored,
        texts,
        verified: own.crossSigningVerified,
    };
}

export async function backupReset(town) {
    const alice = await town.person("alice", ENCRYPTS);
    await alice.setUpEncryption();
    const first = await alice.crypto.getActiveSessionBackupVersion();
    const room = await town.encryptedRoom([alice]);
    await alice.say(room, "to be backed up");
    await alice.backup(1);
    await alice.crypto.resetKeyBackup();
    const second = (await alice.backup(1)).version;
    await alice.crypto.disableKeyStorage();
    const left = await refused(alice.client.http.authedRequest("GET", "/room_keys/version"));
    return { replaced: first !== second, left };
}

export async function dehydration(town) {
    const alice = await town.person("alice", ENCRYPTS);
    await alice.setUpEncryption();
    const supported = await alice.crypto.isDehydrationSupported();
    await alice.crypto.startDehydration();
    const bob = await town.person("bob", ENCRYPTS);
    const { room_id: room } = await bob.client.createRoom({
        preset: "private_chat",
        invite: [alice.id],
        initial_state: [
            { type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } },
        ],
    });
    await alice.client.joinRoom(room);
    await until("Bob sees Alice", async () => (await bob.room(room)).getJoinedMemberCount() === 2);
    let dehydrated = 0;
    await until("Bob knows the dehydrated device", async () => {
        const devices = (await bob.crypto.getUserDeviceInfo([alice.id], true)).get(alice.id);
        dehydrated = [...devices.values()].filter((device) => device.dehydrated).length;
        return dehydrated > 0;
    });
    await alice.client.logout(true);
    const said = await bob.say(room, "while nobody was there");

    const laptop = await town.device(alice, { ...ENCRYPTS, recoveryKey: alice.recoveryKey });
    const before = (await laptop.event(room, said)).isDecryptionFailure();
    await laptop.unlock();
    await laptop.crypto.startDehydration();
    return { supported, dehydrated, before, text: await laptop.text(room, said) };
}

export async function ownDevices(town) {
    const alice = await town.person("alice", ENCRYPTS);
    const laptop = await town.device(alice, ENCRYPTS);
    const bob = await town.person("bob", ENCRYPTS);
    const room = await town.encryptedRoom([alice, bob]);
    await laptop.room(room);
    const said = await bob.say(room, "to both");
    const texts = [await alice.text(room, said), await laptop.text(room, said)];
    const gone = laptop.client.getDeviceId();
    await alice.authenticate((auth) => alice.client.deleteDevice(gone, auth ?? undefined));
    const left = await until("Bob knows one device", async () => {
        const devices = (await bob.crypto.getUserDeviceInfo([alice.id])).get(alice.id);
        return devices.size === 1 && devices.size;
    });
    return { texts, left, ended: await refused(laptop.client.whoami()) };
}

export async function fallbackKey(town) {
    // Her next sync is answered when there is something for her: keys that run out are no news.
    const alice = await town.person("alice", { ...ENCRYPTS, pollTimeout: 60_000 });
    const take = async () => {
        const device = alice.client.getDeviceId();
        const reply = await carol.client.claimOneTimeKeys([[alice.id, device]], "signed_curve25519", 5000);
        return Object.values(reply.one_time_keys[alice.id][device])[0];
    };
    const [bob, carol] = [await town.person("bob", ENCRYPTS), await town.person("carol")];
    const room = await town.encryptedRoom([bob, alice]);
    const taken = [];
    for (;;) {
        const key = await take();
        taken.push(key.key);
        if (key.fallback) break;
    }
    const said = await bob.say(room, "by the fallback key");
    const text = await alice.text(room, said);
    const renewed = await until("keys are given out again", async () => !(await take()).fallback);
    return { taken: taken.length, distinct: new Set(taken).size, text, renewed };
}
