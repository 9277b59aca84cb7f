import { useEffect, useState } from "react";
import { type Fleet, INITIAL_FLEET, watch } from "./discovery";

/** The registry's list, kept up to date for as long as the component is shown. */
export function useFleet(url: string): Fleet {
  const [fleet, setFleet] = useState(INITIAL_FLEET);
  useEffect(() => {
    setFleet(INITIAL_FLEET);
    return watch(url, setFleet);
  }, [url]);
  return fleet;
}
