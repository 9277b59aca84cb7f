import { useEffect, useState } from "react";
import { type Fleet, nothingYet, watch } from "./discovery";

/** The registry's list, kept up to date for as long as the component is shown. */
export function useFleet(url: string): Fleet {
  const [fleet, setFleet] = useState(nothingYet);
  useEffect(() => {
    setFleet(nothingYet);
    return watch(url, setFleet);
  }, [url]);
  return fleet;
}
