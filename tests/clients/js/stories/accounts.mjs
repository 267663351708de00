import * as sdk from "matrix-js-sdk";
import { refused } from "../town.mjs";

export async function login(town) {
    const alice = await town.person("alice");
    const fresh = sdk.createClient({ baseUrl: town.server });
    const { flows } = await fresh.loginFlows();
    const identifier = { type: "m.id.user", user: alice.id };
    const request = { type: "m.login.password", identifier, initial_device_display_name: "phone" };
    const wrong = await refused(fresh.loginRequest({ ...request, password: "wrong" }));
    const session = await fresh.loginRequest({ ...request, password: alice.password, refresh_token: true });
    const phone = sdk.createClient({ baseUrl: town.server, accessToken: session.access_token });
    const whoami = await phone.whoami();
    const { devices } = await alice.client.getDevices();
    const renewed = await fresh.refreshToken(session.refresh_token);
    phone.setAccessToken(renewed.access_token);
    const renewedIs = await phone.whoami();
    await phone.logout(true);
    return {
        flows: flows.map((flow) => flow.type),
        wrong,
        same: whoami.user_id === alice.id && whoami.device_id === session.device_id,
        stillSame: renewedIs.device_id === session.device_id,
        named: devices.find((device) => device.device_id === session.device_id).display_name,
        after: await refused(phone.whoami()),
        versions: (await fresh.getVersions()).versions.length > 10,
        stable: await fresh.isVersionSupported("v1.11"),
    };
}
