// Tells stories: a line of JSON comes in for each ({"id", "story", "server"}), a line goes out with
// how it ended ({"id", "outcome"} or {"id", "error"}).  Everything the library logs goes to standard error.

import { Console } from "node:console";
import { createInterface } from "node:readline";

globalThis.console = new Console(process.stderr, process.stderr);
// COMPAT: the library is written for node 22, which has this; nothing else keeps it from running on 20.
Promise.withResolvers ??= () => {
    const made = {};
    made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
    return made;
};
const { Town } = await import("./town.mjs");

const files = ["accounts", "encryption", "verification", "rooms", "conversation", "today"];
const stories = Object.assign({}, ...(await Promise.all(files.map((name) => import(`./stories/${name}.mjs`)))));

async function tell({ id, story, server }) {
    const town = new Town(server, `${story.toLowerCase()}${id}`);
    try {
        return { id, outcome: await stories[story](town) };
    } catch (error) {
        return { id, error: String(error?.stack ?? error) };
    } finally {
        town.close();
    }
}

process.on("unhandledRejection", (error) => console.error("unhandled rejection", error));
for await (const line of createInterface({ input: process.stdin })) {
    tell(JSON.parse(line)).then((result) => process.stdout.write(`${JSON.stringify(result)}\n`));
}
process.exit(0);
