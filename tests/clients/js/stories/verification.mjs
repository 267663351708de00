import { CryptoEvent, VerificationPhase, VerifierEvent } from "matrix-js-sdk/lib/crypto-api/index.js";
import { until } from "../town.mjs";

const ENCRYPTS = { encrypts: true };

/** Both compare emojis, which are the same; returns what each saw. */
async function compare(starter, request, other, received) {
    const incoming = await until("the request arrives", () => received.find((one) => one.pending));
    await incoming.accept();
    await until("the request is accepted", () => request.phase === VerificationPhase.Ready);
    const first = await request.startVerification("m.sas.v1");
    const second = await until("the other side has begun", () => incoming.verifier);
    const seen = [first, second].map(
        (verifier) =>
            new Promise((resolve) => {
                const show = async (sas) => {
                    resolve(sas.sas.emoji.map(([emoji]) => emoji).join(" "));
                    await sas.confirm();
                };
                verifier.on(VerifierEvent.ShowSas, show);
                const already = verifier.getShowSasCallbacks();
                if (already) show(already);
            }),
    );
    await Promise.all([first.verify(), second.verify()]);
    await until("both are done", () => [request, incoming].every((one) => one.phase === VerificationPhase.Done));
    return Promise.all(seen);
}

function requests(person) {
    const received = [];
    person.client.on(CryptoEvent.VerificationRequestReceived, (request) => received.push(request));
    return received;
}

export async function devices(town) {
    const phone = await town.person("alice", ENCRYPTS);
    await phone.setUpEncryption();
    const bob = await town.person("bob", ENCRYPTS);
    const room = await town.encryptedRoom([phone, bob]);
    const said = await bob.say(room, "before the laptop was there");
    await phone.text(room, said);
    await phone.backup(1);
    const received = requests(phone);
    const laptop = await town.device(phone, ENCRYPTS);
    const before = await laptop.crypto.isCrossSigningReady();
    const undecrypted = (await laptop.event(room, said)).isDecryptionFailure();
    await until("the laptop knows of the identity", () => laptop.crypto.userHasCrossSigningKeys(laptop.id, true));
    const request = await laptop.crypto.requestOwnUserVerification();
    const [ours, theirs] = await compare(laptop, request, phone, received);
    const ready = await until("the laptop has the secrets", () => laptop.crypto.isCrossSigningReady());
    const text = await laptop.text(room, said);
    const verified = await until("the phone trusts the laptop", async () => {
        const status = await phone.crypto.getDeviceVerificationStatus(phone.id, laptop.client.getDeviceId());
        return status?.crossSigningVerified;
    });
    return { before, undecrypted, sameEmojis: ours === theirs, emojis: ours.split(" ").length, ready, verified, text };
}

export async function users(town) {
    const [alice, bob] = [await town.person("alice", ENCRYPTS), await town.person("bob", ENCRYPTS)];
    await alice.setUpEncryption();
    await bob.setUpEncryption();
    const room = await town.encryptedRoom([alice, bob]);
    const received = requests(bob);
    await alice.crypto.getUserDeviceInfo([bob.id], true);
    await bob.crypto.getUserDeviceInfo([alice.id], true);
    const before = (await alice.crypto.getUserVerificationStatus(bob.id)).isCrossSigningVerified();
    const request = await alice.crypto.requestVerificationDM(bob.id, room);
    const [ours, theirs] = await compare(alice, request, bob, received);
    const trust = (person, other) =>
        until(`${person.id} trusts ${other.id}`, async () =>
            (await person.crypto.getUserVerificationStatus(other.id)).isCrossSigningVerified(),
        );
    return {
        before,
        inRoom: request.roomId === room,
        sameEmojis: ours === theirs,
        alice: await trust(alice, bob),
        bob: await trust(bob, alice),
    };
}
