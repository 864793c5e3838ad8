// Whether the running service answers with a version that has become the champion.
import { get } from "./api.js";

const LOOK_MILLISECONDS = 1000, WAIT_MILLISECONDS = 60_000;

/** Call `show({ text, todo, bad })` now and after each change, until the service has the version. */
export async function followChampion(version, show) {
  const until = Date.now() + WAIT_MILLISECONDS, made = `Version ${version} is the champion`;
  let last = "";
  const say = (text, todo = "", bad = false) => { if (text !== last) show({ text, todo, bad }); last = text; };
  for (;;) {
    const { name, address, problem, models } = await get("api/production/model");
    const is = (one) => one.name === name && one.version === version;
    if (!address) {
      return say(`${made} in the registry. Services that follow the registry load it within seconds.`,
        "to see here whether a service has loaded it, start the studio with --service URL");
    }
    if (models?.some(is)) return say(`${made}, and the service at ${address} answers with it.`);
    const isLate = Date.now() > until;
    if (problem) say(`${made} in the registry, but ${problem.text}.`, "start the service with `rootstock serve`: it loads the champion when it starts", true);
    else if (!isLate) say(`${made} in the registry. Waiting until the service at ${address} loads it …`);
    else {
      const others = models.map((one) => `${one.name} ${one.version}`).join(", ");
      say(`${made} in the registry, but the service at ${address} ${others ? `still answers with ${others}` : "has not loaded a model"}.`,
        `check that it serves models:/${name}@champion of this registry (ROOTSTOCK_MODEL), and read its log`, true);
    }
    if (isLate) return undefined;
    await new Promise((resolve) => setTimeout(resolve, LOOK_MILLISECONDS));
  }
}
